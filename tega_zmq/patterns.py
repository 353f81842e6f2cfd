"""Regexes of users, safe to run.

Python's `re` backtracks: a pattern of a few characters can keep it busy for hours. So a pattern is accepted
only if a bound on its work, found from its structure before it ever runs, is small. The bound holds for all
texts of up to 255 characters, which is what an oid or a channel name may have:

* For each part of a pattern: in how many ways can it match from one place, so that what follows is not
  refused at its first character? A single character: one. A repeat of single characters: as many as it may
  take, but one if what follows begins with another character (`[^-]*-`), or cannot fail (`.*` at the end).
* A part's work is done again for each way of all that stand before it; so ways multiply, unless choices
  exclude each other. A repeat of something that itself matches in several ways has exponentially many, and
  is refused (`(a+)+`, `(a|a)*`), as are repeats of what may be empty, lookaround and references to groups.
* The sum must not exceed `MAX_STEPS`, about two ambiguous repeats in a row: some milliseconds at worst.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any, Final, NamedTuple

from tega_zmq.errors import InvalidValue

__all__ = [
    "MAX_REGEX",
    "MAX_STEPS",
    "MAX_TEXT",
    "ChannelPattern",
    "OidPattern",
    "Search",
    "compile_channel",
    "compile_oids",
    "compile_search",
]

MAX_REGEX: Final = 256
"""Longest regex, in characters."""

MAX_TEXT: Final = 255
"""Longest text that a regex is run on, in characters."""

MAX_STEPS: Final = 8 * (MAX_TEXT + 1) ** 2
"""The most steps that matching one text may take, by the bound above."""

MAX_RANGES: Final = 70_000
"""The most characters that the ranges of a regex may have; where case is ignored, `re` looks at each."""

_STEPS: Final = 50
"""How many steps are half a microsecond, rather fewer than more."""

Groups = list[list["str | None"]]


class Work:
    """The most that a regex can cost, by the length of the text; in half microseconds."""

    __slots__ = ("_end", "_items", "_known", "ranges")

    def __init__(self, items: list[Any], end: _Follow) -> None:
        """`items`: what the parser of `re` made of it, `end`: what follows on it."""
        self._items = items
        self._end = end
        self._known: dict[int, int] = {}
        self.ranges = _ranges(items)
        """How many characters the ranges in it have."""

    def check(self) -> None:
        """Raises `_TooComplex` if it may take too long."""
        if self.ranges > MAX_RANGES:
            raise _TooComplex("the ranges in it have too many characters")
        self.of(MAX_TEXT)

    def of(self, length: int) -> int:
        """Return what a text of `length` characters costs at most; from 1 up."""
        # Lengths up to the next power of two have one bound: so there are nine at most to find.
        bits = max(length.bit_length(), 3)
        known = self._known.get(bits)
        if known is None:
            follow = _sequence(self._items, self._end, min((1 << bits) - 1, MAX_TEXT))[1]
            known = self._known[bits] = 1 + (follow.cost + follow.once) // _STEPS
        return known


class OidPattern:
    """A regex for each oid of a path. Each matches from the start of its oid, not to its end."""

    __slots__ = ("_work", "oids", "text")

    def __init__(self, text: str, oids: tuple[re.Pattern[str], ...], work: tuple[Work, ...]) -> None:
        self.text = text
        self.oids = oids
        self._work = work

    def cost(self, depth: int, oid: str) -> int:
        """Return what `step` costs at most, in half microseconds; from 1 up."""
        return self._work[depth].of(len(oid))

    def step(self, depth: int, oid: str) -> list[str | None] | None:
        """Match the oid at `depth` (0 is the root): its groups (empty if it has none), or None: no match."""
        match = self.oids[depth].match(oid)
        return None if match is None else list(match.groups())

    def match(self, path: Iterable[str]) -> Groups | None:
        """Match a path that has as many oids as the pattern: the groups of each oid that has any, or None."""
        oids = tuple(path)
        return self.match_prefix(oids) if len(oids) == len(self.oids) else None

    def match_prefix(self, path: Iterable[str]) -> Groups | None:
        """Match a path, or one that it stands below: the groups as in `match`, or None."""
        oids = tuple(path)
        if len(oids) < len(self.oids):
            return None
        groups: Groups = []
        for pattern, oid in zip(self.oids, oids, strict=False):
            match = pattern.match(oid)
            if match is None:
                return None
            if pattern.groups:
                groups.append(list(match.groups()))
        return groups


class ChannelPattern:
    """A regex that matches whole channel names."""

    __slots__ = ("_pattern", "text")

    def __init__(self, text: str, pattern: re.Pattern[str]) -> None:
        self.text = text
        self._pattern = pattern

    def match(self, name: str) -> bool:
        """Tell whether the whole of `name` matches. A name longer than `MAX_TEXT` never does."""
        return len(name) <= MAX_TEXT and self._pattern.fullmatch(name) is not None


@lru_cache(maxsize=1024)
def compile_oids(regex: str) -> OidPattern:
    r"""Return the pattern of `regex`, whose parts for each oid are parted by `\.`.

    Raises `InvalidValue` that says what is wrong and where: too long, an empty part, bad syntax, or a
    construct that could take too long.
    """
    _check_text(regex)
    parts = []
    for start, part in _split(regex):
        if not part:
            raise InvalidValue(f"{regex!a}: the part at column {start + 1} is empty; `.*` matches any oid")
        parts.append(_compile(regex, start, part, whole=False))
    return OidPattern(regex, tuple(each for each, _ in parts), tuple(work for _, work in parts))


@lru_cache(maxsize=1024)
def compile_channel(regex: str) -> ChannelPattern:
    """Return the pattern of `regex`; a dot matches any character. Raises as `compile_oids`."""
    _check_text(regex)
    if not regex:
        raise InvalidValue("a regex must not be empty; `.*` matches every channel")
    return ChannelPattern(regex, _compile(regex, 0, regex, whole=True)[0])


class Search:
    """A regex that is to be found anywhere in a text."""

    __slots__ = ("_pattern", "_work", "ranges")

    def __init__(self, pattern: re.Pattern[str], work: Work) -> None:
        self._pattern = pattern
        self._work = work
        self.ranges = work.ranges

    def found(self, text: str) -> bool:
        """Whether it is in `text`."""
        return self._pattern.match(text) is not None

    def cost(self, text: str) -> int:
        """Return what `found` costs at most, as `OidPattern.cost`. `text` has up to `MAX_TEXT` characters."""
        return self._work.of(len(text))


def compile_search(regex: str) -> Search:
    """Return the pattern that finds `regex` anywhere in a text, as JSON Schema has it. Raises likewise."""
    _check_text(regex)
    before = r"[\s\S]*?(?:"
    return Search(*_compile(regex, -len(before), f"{before}{regex})", whole=False))


def _check_text(regex: str) -> None:
    if type(regex) is not str:
        raise InvalidValue(f"a regex is text, not {type(regex).__name__}")
    if len(regex) > MAX_REGEX:
        raise InvalidValue(f"a regex of {len(regex)} characters; at most {MAX_REGEX} are allowed")


def _split(regex: str) -> Iterator[tuple[int, str]]:
    r"""Yield (start, part) of the parts between `\.`, those in character classes and after `\` aside."""
    start = at = 0
    in_class = False
    while at < len(regex):
        character = regex[at]
        if character == "\\":
            if regex[at + 1 : at + 2] == "." and not in_class:
                yield start, regex[start:at]
                start = at + 2
            at += 2
            continue
        if character == "[" and not in_class:
            in_class = True
            # A bracket that comes first is one of the characters.
            if regex[at + 1 : at + 2] == "^":
                at += 1
            if regex[at + 1 : at + 2] == "]":
                at += 1
        elif character == "]":
            in_class = False
        at += 1
    yield start, regex[start:]


def _compile(regex: str, start: int, part: str, whole: bool) -> tuple[re.Pattern[str], Work]:
    flags = re.DOTALL if whole else 0
    end = _Follow(0, True, 1, 1, True) if whole else _Follow(_ALL, False, 0, 1)
    try:
        parsed = list(_parse(part, flags))
        work = Work(parsed, end)
        work.check()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return re.compile(part, flags), work
    except re.error as error:
        column = start + (error.pos or 0) + 1
        raise InvalidValue(f"{regex!a}: bad regex at column {column}: {error.msg}") from None
    except _TooComplex as error:
        raise InvalidValue(
            f"{regex!a}: {part!a} may take too long to match: {error}; use fewer repeats, or "
            "say more closely what they repeat"
        ) from None
    except (OverflowError, RecursionError, ValueError) as error:
        raise InvalidValue(f"{regex!a}: bad regex: {error}") from None


def _parse(part: str, flags: int) -> Any:
    """Parse with the parser of `re` itself: the one place that knows it."""
    from re import _parser  # type: ignore[attr-defined]

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _parser.parse(part, flags)


def _ranges(part: Any) -> int:
    """Return how many characters the ranges in a part of a parsed regex have."""
    if type(part) is tuple and len(part) == 2 and str(part[0]) == "RANGE":
        return int(part[1][1] - part[1][0])
    return sum(map(_ranges, part)) if hasattr(part, "__len__") else 0


# -- the bound -------------------------------------------------------------------------------------
#
# Sets of characters are bit masks: one bit for each ASCII character, and one for all others together.

_OTHERS: Final = 1 << 128
_ALL: Final = (1 << 129) - 1


class _TooComplex(Exception):
    pass


class _Follow(NamedTuple):
    """What stands after a part: all of the rest of the pattern."""

    first: int
    """The characters that it can begin with."""
    fails: bool
    """Whether it can fail at all."""
    cost: int
    """Its steps, at most."""
    lead: int
    """The steps until it refuses a character that it cannot begin with."""
    end: bool = False
    """Whether it is the end of the text, and nothing else."""
    once: int = 0
    """Its steps from where it cannot fail any more: whatever stands before, they are taken once."""


def _sequence(items: list[Any], follow: _Follow, size: int) -> tuple[int, _Follow]:
    """Return in how many ways `items` can match before `follow`, and the two as one.

    `size`: the most characters that the text has.
    """
    ways = 1
    for op, argument in reversed(items):
        count, follow = _item(str(op), argument, follow, size)
        ways *= count
        if max(ways, follow.cost + follow.once) > MAX_STEPS:
            raise _TooComplex("the repeats in it can share a text in too many ways")
    return ways, follow


def _item(op: str, argument: Any, follow: _Follow, size: int) -> tuple[int, _Follow]:
    mask = _mask(op, argument)
    if mask is not None:
        return 1, _Follow(mask, True, 1 + follow.cost, 1, once=follow.once)
    if op == "AT":
        # At an end, nothing but a line feed can follow.
        first = 1 << 10 if str(argument) in ("AT_END", "AT_END_STRING") else follow.first
        return 1, _Follow(first, True, 1 + follow.cost, 1 + follow.lead, once=follow.once)
    if op == "SUBPATTERN":
        return _sequence(list(argument[3]), follow, size)
    if op == "ATOMIC_GROUP":
        return _sequence(list(argument), follow, size)
    if op == "BRANCH":
        return _branch([list(items) for items in argument[1]], follow, size)
    if op in ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT"):
        least, most, body = argument
        items = list(body)
        single = _mask(str(items[0][0]), items[0][1]) if len(items) == 1 else None
        if single is not None:
            return _repeat_one(int(least), int(most), single, follow, size)
        return _repeat(int(least), int(most), items, body.getwidth()[0], follow, size)
    if op in ("ASSERT", "ASSERT_NOT"):
        raise _TooComplex("lookahead and lookbehind are not allowed")
    raise _TooComplex("references to groups are not allowed")


def _repeat_one(least: int, most: int, mask: int, follow: _Follow, size: int) -> tuple[int, _Follow]:
    """A repeat of a single character."""
    count = min(most, size + 1)
    first = mask if least else mask | follow.first
    if follow.end and mask == _ALL and not least and most > size:
        # Takes all there is, and is at the end.
        return 1, _Follow(_ALL, False, 0, 1, once=count)
    if not follow.fails:
        once = count + follow.once
        return 1, _Follow(first, least > 0, 0, 1 + follow.lead, once=once)
    if not mask & follow.first:
        cost = count * (1 + follow.lead) + follow.cost
        return 1, _Follow(first, True, cost, 1 + follow.lead, once=follow.once)
    ways = max(count - least + 1, 1)
    cost = count + ways * (1 + follow.cost)
    return ways, _Follow(first, True, cost, 1 + follow.lead, once=follow.once)


def _repeat(
    least: int, most: int, items: list[Any], width: int, follow: _Follow, size: int
) -> tuple[int, _Follow]:
    """A repeat of a group."""
    if most <= 1 and least == most:
        return _sequence(items, follow, size) if most else (1, follow)
    if most <= 1:
        return _branch([items, []], follow, size)
    if width == 0:
        raise _TooComplex("it repeats something that may be empty")
    first = _sequence(items, _Follow(0, True, 0, 1), size)[1].first
    inner_ways, inner = _sequence(items, _Follow(first | follow.first, True, 0, 1), size)
    count = min(most, size // width + 1)
    after = first if least else first | follow.first
    if inner_ways > 1:
        ways, power = 0, 1
        for times in range(count + 1):
            ways += power if times >= least else 0
            power *= inner_ways
            if power > MAX_STEPS:
                raise _TooComplex("it repeats something that matches in several ways")
        cost = power * count * (1 + inner.cost) + ways * (1 + follow.cost)
        return ways, _Follow(after, True, cost, inner.lead + follow.lead, once=follow.once)
    apart = not first & follow.first
    ways = 1 if apart or not follow.fails else max(count - least + 1, 1)
    cost = count * (1 + inner.cost + follow.lead) + ways * (1 + follow.cost)
    fails = follow.fails or least > 0
    if not fails:
        return ways, _Follow(after, False, 0, inner.lead + follow.lead, once=cost + follow.once)
    return ways, _Follow(after, True, cost, inner.lead + follow.lead, once=follow.once)


def _branch(branches: list[list[Any]], follow: _Follow, size: int) -> tuple[int, _Follow]:
    made = [_sequence(items, follow, size) for items in branches]
    ends = [end for _, end in made]
    seen = 0
    apart = True
    for end in ends:
        apart = apart and not seen & end.first
        seen |= end.first
    lead = sum(end.lead for end in ends)
    once = sum(end.once for end in ends)
    if not all(end.fails for end in ends):
        cost = sum(end.cost for end in ends)
        return sum(ways for ways, _ in made), _Follow(seen, False, 0, lead, once=once + cost)
    if apart:
        cost = max(end.cost for end in ends) + lead
        return max(ways for ways, _ in made), _Follow(seen, True, cost, lead, once=once)
    cost = sum(end.cost for end in ends) + len(ends)
    return sum(ways for ways, _ in made), _Follow(seen, True, cost, lead, once=once)


def _mask(op: str, argument: Any) -> int | None:
    """Return the characters that an item matches if it always takes exactly one, else None."""
    if op == "LITERAL":
        return _bits(argument, argument)
    if op == "NOT_LITERAL":
        return (_ALL & ~_bits(argument, argument)) | _OTHERS
    if op == "ANY":
        return _ALL
    if op != "IN":
        return None
    mask = 0
    negated = False
    for kind, what in argument:
        name = str(kind)
        if name == "NEGATE":
            negated = True
        elif name == "LITERAL":
            mask |= _bits(what, what)
        elif name == "RANGE":
            mask |= _bits(*what)
        else:
            mask |= _category(str(what))
    return (_ALL & ~_exact(argument)) | _OTHERS if negated else mask


def _exact(argument: Any) -> int:
    """Return the characters of a class, without those that it has only if case is ignored."""
    mask = 0
    for kind, what in argument:
        name = str(kind)
        if name == "LITERAL":
            mask |= _range(what, what)
        elif name == "RANGE":
            mask |= _range(*what)
        elif name == "CATEGORY":
            mask |= _category(str(what))
    return mask


def _range(low: int, high: int) -> int:
    mask = 0
    for code in range(low, min(high, 127) + 1):
        mask |= 1 << code
    return mask | (_OTHERS if high > 127 else 0)


def _bits(low: int, high: int) -> int:
    """Return the mask of a range; letters in both cases, and those that fold to them, to be safe."""
    mask = _range(low, high)
    for code in range(max(low, 65), min(high, 122) + 1):
        if chr(code).isalpha():
            mask |= 1 << (code ^ 32) | (_OTHERS if chr(code) in "iIkKsS" else 0)
    return mask


def _category(name: str) -> int:
    text = name.removeprefix("CATEGORY_").removeprefix("UNI_").removeprefix("LOC_")
    pattern = {"DIGIT": r"\d", "SPACE": r"\s", "WORD": r"\w"}.get(text.removeprefix("NOT_"))
    if pattern is None:
        return _ALL
    found = 0
    for code in range(128):
        if (re.match(pattern, chr(code)) is None) == text.startswith("NOT_"):
            found |= 1 << code
    return found | _OTHERS
