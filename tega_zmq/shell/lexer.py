"""Cuts a typed line into words.

The rules are few, so that paths, YAML and calls can be typed as they are:

* words are parted by white space;
* white space inside quotes, and inside brackets that begin a word, does not part words: `{mtu: 1500}` and
  `"two words"` are one word each;
* a quote counts at the beginning of a word, after `=`, inside brackets also after `{ [ ( , :` or white space,
  and a double quote after a dot; so `it's` is an ordinary word;
* nothing else is special: no redirection, no pipes, no variables, no `;`.

Quotes stay in the words: in a value they are YAML's, in a path they belong to the oid. `unquote` takes them
off where a word is plain text.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["LineError", "Word", "split", "split_open", "unquote"]

_OPENING = {"{": "}", "[": "]", "(": ")"}
_BEFORE_QUOTE = frozenset("{[(,:=")


class LineError(ValueError):
    """A line that cannot be cut into words; the message says where and why."""


class Word(NamedTuple):
    """One word and where it begins in the line."""

    text: str
    start: int


def split(line: str) -> list[Word]:
    """Return the words of `line`. Raises `LineError` for a quote or bracket that is not closed."""
    words: list[Word] = []
    at, end = 0, len(line)
    while at < end:
        if line[at].isspace():
            at += 1
            continue
        stop = _end_of_word(line, at)
        words.append(Word(line[at:stop], at))
        at = stop
    return words


def split_open(line: str) -> list[Word]:
    """Return the words of a line that is being typed; the last one, perhaps empty, is where the cursor is.

    What is not closed belongs to the last word. Raises nothing.
    """
    words: list[Word] = []
    at, end = 0, len(line)
    while True:
        while at < end and line[at].isspace():
            at += 1
        try:
            stop = _end_of_word(line, at)
        except LineError:
            stop = end
        words.append(Word(line[at:stop], at))
        if stop == end:
            return words
        at = stop


def unquote(word: str) -> str:
    """Return `word` without the quotes around it, if all of it is in one pair.

    In double quotes a backslash stands before a quote or a backslash, in single quotes a quote is doubled.
    """
    if len(word) < 2 or word[0] != word[-1] or word[0] not in "\"'":
        return word
    if _end_of_quotes(word, 0) != len(word):
        return word
    inner = word[1:-1]
    if word[0] == "'":
        return inner.replace("''", "'")
    out: list[str] = []
    at = 0
    while at < len(inner):
        if inner[at] == "\\" and inner[at + 1 : at + 2] in ('"', "\\"):
            at += 1
        out.append(inner[at])
        at += 1
    return "".join(out)


def _end_of_word(line: str, start: int) -> int:
    closing: list[tuple[str, int]] = []
    at = start
    while at < len(line):
        char = line[at]
        if char in "\"'" and _opens(line, start, at, bool(closing)):
            at = _end_of_quotes(line, at)
            continue
        if char.isspace() and not closing:
            break
        if char in _OPENING and (closing or at == start):
            closing.append((_OPENING[char], at))
        elif closing and char == closing[-1][0]:
            closing.pop()
        at += 1
    if closing:
        where = closing[-1][1]
        raise LineError(f"the {line[where]} at column {where + 1} is not closed")
    return at


def _opens(line: str, start: int, at: int, bracketed: bool) -> bool:
    """Whether the quote at `at` opens something, in a word that begins at `start`."""
    if at == start:
        return True
    before = line[at - 1]
    if bracketed:
        return before in _BEFORE_QUOTE or before.isspace() or (before == "." and line[at] == '"')
    return before == "=" or (before == "." and line[at] == '"')


def _end_of_quotes(line: str, start: int) -> int:
    """Return the place after the quotes that open at `start`."""
    quote = line[start]
    at = start + 1
    while at < len(line):
        if line[at] == "\\" and quote == '"':
            at += 2
            continue
        if line[at] == quote:
            if quote == "'" and line[at + 1 : at + 2] == "'":
                at += 2
                continue
            return at + 1
        at += 1
    raise LineError(f"the quote at column {start + 1} is not closed")
