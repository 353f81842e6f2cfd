"""What a plugin is made of: the class `Plugin`, and the decorators `rpc` and `on_change`.

Nothing here does any work. A host (`tega_zmq.plugins.host`) finds the classes, makes one instance of each,
and reads with `handlers_of` what the decorators noted.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, TypeVar

from tega_zmq import paths

if TYPE_CHECKING:
    import logging
    from collections.abc import Mapping

__all__ = ["Change", "Handler", "Plugin", "check_name", "expand", "handlers_of", "on_change", "rpc"]

_Method = TypeVar("_Method", bound=Callable[..., Any])

_MARK = "__tega_handlers__"
_ID = "{tega_id}"

# Of a code object, as the module inspect has them; importing that module costs every device a megabyte.
_COROUTINE, _ASYNC_GENERATOR, _GENERATOR = 0x80, 0x200, 0x20

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


class Change(NamedTuple):
    """What a method under `on_change` is given: how the value at its path differs from the last applied."""

    path: str
    """The path of the decorator, `{tega_id}` replaced; or its regex."""
    old: Any
    """The value that the method last returned from; None if there was none (`created`)."""
    new: Any
    """The present value, whole; None if there is none (`deleted`). With a regex: a dict that maps the path
    of each node that matches to its value."""
    version: int | None
    """The version of the node at `path`; None if it is gone, or under a regex and not known."""
    epoch: str
    """The epoch of its root, or ""."""
    tega_id: str
    """Who made the newest change, or "" if it was made while nobody looked."""
    message: str
    """The message of that commit, or ""."""
    created: bool
    """There was no value before: then `old` is None, but a stored null is None too."""
    deleted: bool
    """There is no value now: then `new` is None, but a stored null is None too."""


class Handler(NamedTuple):
    """One use of a decorator."""

    kind: Literal["rpc", "on_change"]
    path: str
    """As written, `{tega_id}` not yet replaced."""
    method: str
    """The name of the method."""
    regex: bool


def rpc(path: str) -> Callable[[_Method], _Method]:
    """Offer the method as a handler at `path`, in which `{tega_id}` stands for the id of the node.

    It is called with the caller's arguments; what it returns or raises goes back to the caller. Calls run
    in threads of the client, several at a time, beside the plugin's own thread. Raises `InvalidPath`, and
    `TypeError` for what is not a plain function.
    """
    return _decorator("rpc", path, regex=False)


def on_change(path: str, *, regex: bool = False) -> Callable[[_Method], _Method]:
    """Call the method with a `Change` whenever the value at `path` differs from the last one applied.

    `{tega_id}` in `path` stands for the id of the node. With `regex`, `path` is a regular expression that is
    matched oid by oid, and the value is a dict of all that matches. Raises `InvalidPath`, and `TypeError`
    for what is not a plain function.
    """
    return _decorator("on_change", path, regex=regex)


def _decorator(kind: Literal["rpc", "on_change"], path: str, *, regex: bool) -> Callable[[_Method], _Method]:
    if not isinstance(path, str):
        raise TypeError(f'write @{kind}("some.path"): the decorator needs a path, not {type(path).__name__}')
    expand(path, "x", regex=regex)

    def mark(method: _Method) -> _Method:
        refuse_async(method, f"@{kind}({path!r})")
        name = getattr(method, "__name__", "")
        if not name or isinstance(method, (staticmethod, classmethod, type)):
            raise TypeError(
                f"@{kind}({path!r}) stands before a {type(method).__name__}; it must stand before a method"
            )
        known: tuple[Handler, ...] = getattr(method, _MARK, ())
        setattr(method, _MARK, (*known, Handler(kind, path, name, regex)))
        return method

    return mark


def refuse_async(method: Any, what: str) -> None:
    """Raise `TypeError` if calling `method` would only make a coroutine or generator."""
    flags = getattr(getattr(method, "__code__", None), "co_flags", 0)
    if flags & (_COROUTINE | _ASYNC_GENERATOR):
        raise TypeError(
            f"{what}: {method.__qualname__} is async; plugins run in threads, write it without async"
        )
    if flags & _GENERATOR:
        raise TypeError(
            f"{what}: {method.__qualname__} is a generator (it has yield); return a value, or a list, instead"
        )


def expand(path: str, tega_id: str, *, regex: bool) -> str:
    """Return `path` with `{tega_id}` replaced. Raises `InvalidPath` if it is no path then."""
    if regex:
        return path.replace(_ID, re.escape(tega_id))
    text = path.replace(_ID, tega_id)
    return paths.format_path(paths.parse(text))


class Plugin:
    """Base of all plugins: subclass it, and decorate methods with `rpc` and `on_change`.

    The host makes one instance without arguments; `__init__` must do no I/O, and the attributes below are
    not set yet in it. Then it calls `start`, and connects the handlers when that returned. `start`, `stop`,
    methods under `on_change` and periodic work run in the plugin's own thread, one after the other.
    """

    name: ClassVar[str] = ""
    """What the plugin is called in config (`plugin: {name: ...}`) and listings; the class name in lower case
    unless the class says otherwise."""

    tega: Any
    """A blocking client of the node. Callbacks of its subscriptions run in the plugin's own thread; they and
    its handlers end when the plugin is unloaded."""
    tega_id: str
    """Of the node."""
    settings: Mapping[str, Any]
    """The plugin's part of the config; empty if it has none."""
    log: logging.Logger

    _every: Callable[[float, Callable[[], Any], bool], None] | None = None

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        if "name" not in cls.__dict__:
            cls.name = cls.__name__.lower()
        for hook in ("start", "stop", "__init__"):
            refuse_async(cls.__dict__.get(hook), f"plugin {cls.name}")

    def start(self) -> None:
        """Called once, first of all, in the plugin's own thread. If it raises, the plugin has failed."""

    def stop(self) -> None:
        """Called last, before the plugin is unloaded; its handlers are gone already."""

    def every(self, seconds: float, method: Callable[[], Any], *, now: bool = False) -> None:
        """Call `method` every `seconds`, first after that time, or with `now` at once.

        It runs in the plugin's own thread. Calls that could not be made in time are left out, not made up
        for. What it raises is logged and shown, and it is called again. Ends when the plugin is unloaded.
        Raises `ValueError` below 0.01 s, `TypeError` for what is no plain function, `RuntimeError` before
        `start`.
        """
        if self._every is None:
            raise RuntimeError(f"plugin {self.name}: call every() in start() or later, not in __init__")
        if not seconds >= 0.01:
            raise ValueError(f"plugin {self.name}: every({seconds}): the interval must be 0.01 s or more")
        refuse_async(method, f"plugin {self.name}: every")
        if not callable(method):
            raise TypeError(f"plugin {self.name}: every() calls a method, not {type(method).__name__}")
        self._every(float(seconds), method, now)


def handlers_of(plugin: type[Plugin]) -> list[Handler]:
    """Return the decorated methods of a plugin class, those of its bases first, in the order of the text.

    A method that a subclass overrides without a decorator is no handler any more.
    """
    found: dict[str, tuple[Handler, ...]] = {}
    for cls in reversed(plugin.__mro__):
        for name, attribute in cls.__dict__.items():
            marks: tuple[Handler, ...] = getattr(attribute, _MARK, ())
            if marks or name in found:
                found[name] = tuple(mark._replace(method=name) for mark in marks)
    return [handler for marks in found.values() for handler in marks]


def check_name(plugin: type[Plugin]) -> str:
    """Return the plugin's name. Raises `ValueError` if it cannot be one."""
    name: Any = plugin.name
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError(
            f"the name of plugin class {plugin.__name__} is {name!r}; it must be 1 to 64 letters,"
            " digits, _ or -, the first a letter or digit"
        )
    return name
