"""What a root keeps for each of its last versions: a persistent sequence that grows at one end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, Generic, TypeVar

from rpds import HashTrieMap

__all__ = ["Recalled", "Versions"]

T = TypeVar("T")

_CHUNK: Final = 32
"""Items that are copied at most when one is added, and kept at most beyond the oldest."""

_NONE: Final[HashTrieMap[int, Any]] = HashTrieMap()

_new = object.__new__


class Versions(Generic[T]):
    """An item for each version from `oldest` on, without a gap. Immutable; `Versions()` is empty.

    Adding one costs the same however many there are, and shares all with the former but the last few. Items
    that were let go of stay in memory until those of 32 versions can go together.
    """

    __slots__ = ("_chunks", "_end", "_tail", "oldest")

    def __init__(
        self,
        oldest: int = 0,
        end: int = 0,
        chunks: HashTrieMap[int, tuple[T, ...]] = _NONE,
        tail: tuple[T, ...] = (),
    ) -> None:
        """With arguments for this class alone."""
        self.oldest = oldest
        self._end = end
        """The version after the newest."""
        self._chunks = chunks
        """By version // 32; the last item of a chunk is that of the last version in it."""
        self._tail = tail
        """Items up to the newest, of a chunk that is not full."""

    def add(self, version: int, item: T, oldest: int = 0) -> Versions[T]:
        """Return these with the item of `version`, the next one, and without those before `oldest`.

        An empty one may begin anywhere. Raises `ValueError` for any other version.
        """
        end = self._end
        tail = (*self._tail, item)
        chunks = self._chunks
        low = self.oldest
        if version != end:
            if low < end:
                raise ValueError(f"version {version} cannot come after {end - 1}")
            low = version
        end = version + 1
        if not end % _CHUNK:
            chunks = chunks.insert(version // _CHUNK, tail)
            tail = ()
        if oldest > low:
            if low // _CHUNK != oldest // _CHUNK:
                for gone in range(low // _CHUNK, oldest // _CHUNK):
                    chunks = chunks.discard(gone)
            low = oldest
        made: Versions[T] = _new(Versions)  # twice in every put, where the class takes twice the time
        made.oldest = low
        made._end = end
        made._chunks = chunks
        made._tail = tail
        return made

    def get(self, version: int, default: T | None = None) -> T | None:
        """Return the item of `version`, or `default`."""
        end = self._end
        if not self.oldest <= version < end:
            return default
        if version >= end - len(self._tail):
            return self._tail[version - end]
        return self._chunks[version // _CHUNK][version % _CHUNK - _CHUNK]

    def __getitem__(self, version: int) -> T:
        """Return the item of `version`. Raises `KeyError`."""
        if version not in self:
            raise KeyError(version)
        item: Any = self.get(version)
        return item  # type: ignore[no-any-return]

    def __contains__(self, version: object) -> bool:
        return isinstance(version, int) and self.oldest <= version < self._end

    def __iter__(self) -> Iterator[int]:
        """Yield the versions, the oldest first."""
        return iter(range(self.oldest, self._end))

    def __len__(self) -> int:
        return self._end - self.oldest

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Versions):
            return NotImplemented
        return list(self) == list(other) and all(self[version] == other[version] for version in self)

    __hash__ = None  # type: ignore[assignment]  # equality goes through all items


class Recalled(Versions[T]):
    """The items of others, and beside them some that they let go of, until the next one is added."""

    __slots__ = ("_kept", "_recalled")

    def __init__(self, kept: Versions[T], recalled: Mapping[int, T]) -> None:
        super().__init__(kept.oldest, kept._end, kept._chunks, kept._tail)
        self._kept = kept
        self._recalled = recalled

    def add(self, version: int, item: T, oldest: int = 0) -> Versions[T]:
        """As the others do; what was recalled is left out."""
        return self._kept.add(version, item, oldest)

    def get(self, version: int, default: T | None = None) -> T | None:
        """Return the item of `version`, kept or recalled, or `default`."""
        found = self._recalled.get(version)
        return super().get(version, default) if found is None else found
