"""What a change costs: counted, not timed."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest

from tega_zmq.tree import build, delete, get, patch, put


class Oid(str):
    """An oid that counts how often any is hashed; whoever copies a map of children hashes all of them."""

    __slots__ = ()
    hashed: ClassVar[list[int]] = [0]

    def __hash__(self) -> int:
        Oid.hashed[0] += 1
        return super().__hash__()


@pytest.mark.parametrize("change", [put, patch, delete])
def test_a_change_in_a_wide_container_costs_what_its_depth_does(change: Any) -> None:
    wide = build({Oid("w"): {Oid(number): {Oid("x"): 0} for number in range(10_000)}}, 0)
    path = (Oid("w"), Oid("77"), Oid("x"))
    Oid.hashed[0] = 0
    after, changes = change(wide, path, *(() if change is delete else (1,)), 1)
    # Each of the three containers on the way is asked and changed a few times.
    assert 0 < Oid.hashed[0] < 30
    assert [at for at, _, _ in changes] == [path]
    found = get(after, path)
    assert found is None if change is delete else found == (1, 1)
