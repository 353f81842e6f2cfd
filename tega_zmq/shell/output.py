"""How results look: YAML or JSON, tables, changes, colours.

Whatever comes from the tree or from peers may hold control characters; none reaches the terminal as such.
Colours are the eight that every terminal has, and only where `want_colour` says so.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from math import isfinite
from typing import Any, NamedTuple, TextIO

__all__ = [
    "Paint",
    "Result",
    "Unwritable",
    "age",
    "ago",
    "flow",
    "is_narrow",
    "is_standard_output",
    "leaves",
    "plain",
    "render",
    "safe",
    "table",
    "to_json",
    "to_yaml",
    "want_colour",
    "when",
    "write_out",
]

_CODES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "blue": "34", "cyan": "36"}
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_ONE_LINE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_YAML_LINE = re.compile(
    r"""^(?P<lead>\s*(?:-\ +)*)
        (?:(?P<key>"(?:[^"\\]|\\.)*"|'(?:[^']|'')*'|[^\s'"\[{\-][^:]*?|-[^\s:][^:]*?)(?P<colon>:)(?=\s|$))?
        (?P<space>\s*)(?P<value>.*)$""",
    re.VERBOSE,
)
_NUMBER = re.compile(r"[-+]?(?:\d[\d_]*)?\.?\d+(?:[eE][-+]?\d+)?")
_WORDS = frozenset(("true", "false", "null", "~"))


class Paint(NamedTuple):
    """Puts colours on text, or leaves it as it is."""

    colour: bool

    def __call__(self, text: str, *styles: str) -> str:
        """Return `text` in `styles`: bold, dim, red, green, yellow, blue, cyan."""
        if not self.colour or not text:
            return text
        return f"\x1b[{';'.join(_CODES[style] for style in styles)}m{text}\x1b[0m"


plain = Paint(False)


class Unwritable(Exception):
    """Standard output does not take what was written: its disk is full, or it is closed."""


def write_out(text: str) -> None:
    """Write `text` to standard output at once. Raises `Unwritable`, or `BrokenPipeError`: nobody reads it."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise Unwritable(f"standard output: {error.strerror or error}") from None


def is_narrow() -> bool:
    """Return whether standard output cannot say every character, so that YAML and JSON must escape some."""
    try:
        "\xfc\u4e16\U0010fffd".encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        return True
    return False


def is_standard_output(name: str) -> bool:
    """Return whether the file of that name is what standard output leads to, as /dev/stdout is."""
    try:
        return os.path.samestat(os.stat(name), os.fstat(sys.stdout.fileno()))
    except (OSError, ValueError):  # there is no such file; or standard output is none
        return False


class Result(NamedTuple):
    """What a command leads to."""

    data: Any = None
    """What `--json` prints."""
    text: Callable[[Paint], str] | str | None = None
    """What is printed otherwise; None: `data` as YAML. An empty text prints nothing."""
    aside: bool = False
    """It goes to standard error, since the command has written something else to standard output."""


def want_colour(stream: TextIO, environ: Mapping[str, str] | None = None) -> bool:
    """Return whether colours may go to `stream`: a terminal that can, and no NO_COLOR in the environment."""
    environ = os.environ if environ is None else environ
    if environ.get("NO_COLOR") or environ.get("TERM", "") in ("", "dumb"):
        return False
    return stream.isatty()


def safe(text: str, *, lines: bool = True) -> str:
    r"""Return `text` with control characters written as `\xNN`; without `lines` newlines and tabs too."""
    return (_CONTROL if lines else _ONE_LINE).sub(_escaped, text)


def _escaped(match: re.Match[str]) -> str:
    code = ord(match.group())
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"


def to_json(value: Any, *, indent: bool = False) -> str:
    """Return `value` as JSON: one line, or indented by two. What JSON cannot say stands as its text.

    It is ASCII where standard output needs that. Keys are sorted, since a tree keeps no order.
    """
    try:
        text = _dumps(value, indent)
    except ValueError:  # only a node of another version, or a broken one, sends what is not finite
        text = _dumps(_finite(value), indent)
    # JSON itself lets DEL, C1, bidirectional controls and lone surrogates through.
    return _CONTROL.sub(lambda match: f"\\u{ord(match.group()):04x}", text)


def _dumps(value: Any, indent: bool) -> str:
    return json.dumps(
        value,
        ensure_ascii=is_narrow(),
        allow_nan=False,
        sort_keys=True,
        indent=2 if indent else None,
        default=_encodable,
    )


def _encodable(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, (tuple, set, frozenset)):
        return list(value)
    return str(value)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if isfinite(value) else str(value)
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_finite(item) for item in value]
    return value


def flow(value: Any, limit: int = 0) -> str:
    """Return `value` in one line, readable as YAML; cut after `limit` characters if that is not 0."""
    if isinstance(value, str) and _is_plain_text(value):
        text = value
    else:
        text = to_json(value)
    if limit and len(text) > limit:
        return text[: limit - 1] + "…"
    return text


def _is_plain_text(text: str) -> bool:
    """Whether `text`, without quotes, is read as that text by YAML and by people."""
    if not re.fullmatch(r"[A-Za-z_/][\w./@ +-]*", text) or text != text.strip():
        return False
    return text.lower() not in ("true", "false", "null", "yes", "no", "on", "off", "y", "n")


def to_yaml(value: Any, paint: Paint = plain) -> str:
    """Return `value` as YAML, without a newline at the end; in ASCII where standard output needs that."""
    from tega_zmq.runtime import yamlio

    text = yamlio.dump(value, escape=is_narrow()).removesuffix("\n")
    if paint.colour:
        text = "\n".join(_paint_line(line, paint) for line in text.split("\n"))
    return text


def _paint_line(line: str, paint: Paint) -> str:
    match = _YAML_LINE.match(line)
    if match is None:
        return line
    key, value = match["key"], match["value"]
    if key is None:
        return match["lead"] + match["space"] + _paint_value(value, paint)
    return f"{match['lead']}{paint(key, 'cyan')}:{match['space']}{_paint_value(value, paint)}"


def _paint_value(value: str, paint: Paint) -> str:
    if _NUMBER.fullmatch(value):
        return paint(value, "yellow")
    if value in _WORDS:
        return paint(value, "blue")
    if value[:1] in ("[", "{", "|", ">", "&", "*"):
        return value
    return paint(value, "green")


def table(rows: Sequence[Sequence[Any]], heads: Sequence[str], paint: Paint = plain) -> str:
    """Return `rows` under `heads`, columns aligned to the left; cells in one line each."""
    cells = [[_cell(cell) for cell in row] for row in rows]
    widths = [max([len(head), *(len(row[i]) for row in cells)]) for i, head in enumerate(heads)]

    def line(parts: Iterable[str]) -> str:
        return "  ".join(part.ljust(width) for part, width in zip(parts, widths, strict=True)).rstrip()

    return "\n".join([paint(line(heads), "bold"), *(line(row) for row in cells)])


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return safe(value if isinstance(value, str) else flow(value), lines=False)


def leaves(path: str, value: Any) -> Iterable[tuple[str, Any]]:
    """Yield `(path, value)` of every leaf and empty container of `value`, whose path is `path`, in order."""
    from tega_zmq.paths import format_oid

    if isinstance(value, Mapping) and value:
        for oid, child in sorted(value.items()):
            yield from leaves(f"{path}.{format_oid(oid)}" if path else format_oid(oid), child)
    else:
        yield path, value


def when(seconds: float) -> str:
    """Return a wall-clock time (Unix seconds) as local `YYYY-MM-DD HH:MM:SS`."""
    import time

    try:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
    except (OverflowError, OSError, ValueError):
        return f"{seconds} s"


def age(seconds: float | None) -> str:
    """Return how long ago something was, in the largest unit that fits: `4 s`, `12 min`, `3 h`, `2 d`."""
    if seconds is None:
        return "-"
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"


def ago(seconds: float | None) -> str | None:
    """Return `age` as a point in time, or None if there is none."""
    return None if seconds is None else f"{age(seconds)} ago"


def render(result: Result, *, as_json: bool, paint: Paint) -> str:
    """Return what is printed for `result`, without a newline at the end; may be empty."""
    if as_json:
        return to_json(result.data, indent=sys.stdout.isatty())
    if result.text is None:
        return to_yaml(result.data, paint)
    return result.text if isinstance(result.text, str) else result.text(paint)
