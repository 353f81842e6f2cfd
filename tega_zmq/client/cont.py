"""`Cont`: a tree of values, written attribute by attribute.

>>> a = Cont("a")
>>> a.b.c = 1
>>> a["eth0.100"].mtu = 1500
>>> a
Cont('a', {'b': {'c': 1}, 'eth0.100': {'mtu': 1500}})
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from tega_zmq.errors import InvalidPath, InvalidValue
from tega_zmq.paths import Path, check, check_oid, format_path, parse

__all__ = ["Cont", "path_of", "value_of"]


class Cont:
    """A container of a tree, with its path.

    `cont.oid` and `cont["oid"]` read a leaf's value, or the container there as a `Cont` that shares this
    tree. Where nothing stands they give an empty `Cont`, which comes into being with the first assignment in
    it: reading creates nothing. Assigning a dict or a `Cont` copies it. Names that start with `_` are not
    oids: `_path`, `_value` (a copy, as a dict), `_oid` are for the tree itself. `in`, `del`, `len`, `==`,
    iteration (over oids) work as for a dict.
    """

    __slots__ = ("_base", "_below", "_top")

    def __init__(
        self, path: str | tuple[str, ...] | list[str], value: Mapping[str, Any] | None = None
    ) -> None:
        base = parse(path) if isinstance(path, str) else check(path)
        top = _copied(value if value is not None else {}, format_path(base))
        if not isinstance(top, dict):
            raise InvalidValue(f"{format_path(base)}: a Cont is a container, made of a dict")
        _set(self, base, (), top)

    # -- the tree itself ----------------------------------------------------------------------------

    @property
    def _path(self) -> Path:
        """The path, as oids."""
        return self._base + self._below  # type: ignore[no-any-return]

    @property
    def _oid(self) -> str:
        """The last oid of the path."""
        return self._path[-1]

    @property
    def _value(self) -> dict[str, Any]:
        """A copy of what stands here, as a dict."""
        return _copied(self._find() or {}, "")  # type: ignore[no-any-return]

    def _find(self) -> dict[str, Any] | None:
        """Return the dict that stands here, or None."""
        at: Any = self._top
        for oid in self._below:
            at = at.get(oid)
            if not isinstance(at, dict):
                return None
        return at  # type: ignore[no-any-return]

    def _made(self) -> dict[str, Any]:
        """Return the dict that stands here; make it, and those above it, if nothing does."""
        at: Any = self._top
        for depth, oid in enumerate(self._below, 1):
            below = at.setdefault(oid, {})
            if not isinstance(below, dict):
                here = format_path(self._base + self._below[:depth])
                raise InvalidPath(f"{here} is a leaf; nothing can be put below it", path=here)
            at = below
        return at  # type: ignore[no-any-return]

    # -- items --------------------------------------------------------------------------------------

    def __getitem__(self, oid: str) -> Any:
        check_oid(oid, oid)
        here = self._find()
        value = here.get(oid, _MISSING) if here is not None else _MISSING
        if value is _MISSING or isinstance(value, dict):
            child = object.__new__(Cont)
            _set(child, self._base, (*self._below, oid), self._top)
            return child
        return value

    def __setitem__(self, oid: str, value: Any) -> None:
        check_oid(oid, oid)
        self._made()[oid] = _copied(value, oid)

    def __delitem__(self, oid: str) -> None:
        here = self._find()
        if here is None or oid not in here:
            raise KeyError(oid)
        del here[oid]

    def __contains__(self, oid: object) -> bool:
        return oid in (self._find() or {})

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._find() or {}))

    def __len__(self) -> int:
        return len(self._find() or {})

    # -- attributes ---------------------------------------------------------------------------------

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return self[name]

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            raise AttributeError(f"{name} is reserved, as all names that start with _")
        self[name] = value

    def __delattr__(self, name: str) -> None:
        try:
            del self[name]
        except KeyError:
            raise AttributeError(name) from None

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self]

    # -- as a value ---------------------------------------------------------------------------------

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Cont):
            return (self._find() or {}) == (other._find() or {})
        if isinstance(other, Mapping):
            return (self._find() or {}) == dict(other)
        return NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Cont({format_path(self._path)!r}, {self._find() or {}!r})"

    def _repr_html_(self) -> str:
        from tega_zmq.client import html

        return html.page(html.tree(self._find() or {}, f"<b>{html.text(format_path(self._path))}</b>"))

    def __reduce__(self) -> tuple[Any, ...]:
        return Cont, (self._path, self._value)


_MISSING = object()

_MAX_DEPTH: Final = 128
"""Most containers within one another that are copied; the node allows fewer."""


def _set(cont: Cont, base: Path, below: Path, top: dict[str, Any]) -> None:
    object.__setattr__(cont, "_base", base)
    object.__setattr__(cont, "_below", below)
    object.__setattr__(cont, "_top", top)


def _copied(value: Any, where: str, depth: int = 0) -> Any:
    """Return `value` with every container copied, and tuples as lists.

    Raises `InvalidPath` for a bad key, `InvalidValue` for more containers within one another than can be
    sent, as in one that holds itself.
    """
    if isinstance(value, Cont):
        return _copied(value._find() or {}, where, depth)
    if not isinstance(value, (Mapping, list, tuple)):
        return value
    if depth > _MAX_DEPTH:
        raise _too_deep(where)
    if isinstance(value, Mapping):
        return {
            check_oid(oid, f"{where}.{oid}"): _copied(item, f"{where}.{oid}", depth + 1)
            for oid, item in value.items()
        }
    return [_copied_json(item, where, depth + 1) for item in value]


def _copied_json(value: Any, where: str, depth: int) -> Any:
    """Return `value`, from within a list, copied: its keys need not be oids. Raises as `_copied`."""
    if isinstance(value, Cont):
        return _copied(value._find() or {}, where, depth)
    if not isinstance(value, (Mapping, list, tuple)):
        return value
    if depth > _MAX_DEPTH:
        raise _too_deep(where)
    if isinstance(value, Mapping):
        return {key: _copied_json(item, where, depth + 1) for key, item in value.items()}
    return [_copied_json(item, where, depth + 1) for item in value]


def _too_deep(where: str) -> InvalidValue:
    shown = where if len(where) <= 80 else f"{where[:80]}..."
    return InvalidValue(f"{shown}: more than {_MAX_DEPTH} containers within one another", path=shown)


def path_of(cont: Cont) -> Path:
    """Return the path of `cont`."""
    return cont._path


def value_of(cont: Cont) -> dict[str, Any]:
    """Return a copy of what `cont` holds, as a dict."""
    return cont._value
