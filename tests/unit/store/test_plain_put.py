"""One lasting put into a root without marks has a way of its own: it gives what the general way gives."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tega_zmq import store as core
from tega_zmq.errors import TegaError
from tega_zmq.store import Store, writing
from tests.storekit import put, stored

OIDS = st.sampled_from(["a", "b", "c", "eth0"])
PATHS = st.lists(OIDS, max_size=4).map(lambda oids: ".".join(["r", *oids]))
LEAVES = st.one_of(st.integers(0, 2), st.sampled_from(["", "x", "ä"]), st.booleans(), st.none(), st.just(1.0))
VALUES = st.recursive(LEAVES, lambda below: st.dictionaries(OIDS, below, max_size=4), max_leaves=12)
TREES = st.dictionaries(OIDS, VALUES, max_size=4)


def outcome(store: Store, path: str, value: Any, expected: int | None) -> Any:
    try:
        return core.write(
            store,
            (put(path, value, expected),),
            time=5.0,
            tega_id="noc",
            session="s1",
            message="m",
            request=7,
            ack=3,
            fresh=lambda: "e",
            max_value=100,
        )
    except TegaError as error:
        return type(error), error.message, error.fields


@given(TREES, st.lists(st.tuples(PATHS, VALUES, st.none() | st.integers(-1, 3)), min_size=1, max_size=4))
def test_it_gives_what_the_general_way_gives(
    tree: dict[str, Any], puts: list[tuple[str, Any, int | None]]
) -> None:
    store = stored(put("r", tree), put("other", {"k": 1}))
    for path, value, expected in puts:
        found = outcome(store, path, value, expected)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(writing, "is_plain_put", lambda _root, _op: False)
            assert found == outcome(store, path, value, expected)
        if isinstance(found, core.Written):
            store = found.store
