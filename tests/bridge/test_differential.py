"""Random REST calls against a model that keeps every version of a root as plain data."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.bridgekit import Answer, Site, url_of

OIDS = st.sampled_from(["a", "b", "eth0.100"])
PATHS = st.lists(OIDS, max_size=3).map(tuple)
LEAVES = st.sampled_from([None, True, 1, 1.0, 0, "", "x", [], [1], [{"a": 1}]])
VALUES = st.recursive(LEAVES, lambda inner: st.dictionaries(OIDS, inner, max_size=2), max_leaves=4)
EXPECTED = st.sampled_from([None, None, None, "absent", 0, 1, 2, "now", "now"])
CALLS = st.one_of(
    st.tuples(st.sampled_from(["PUT", "PATCH"]), PATHS, VALUES, EXPECTED),
    st.tuples(st.just("PUT"), PATHS, VALUES, st.none()),
    st.tuples(st.just("DELETE"), PATHS, st.none(), EXPECTED),
    st.tuples(st.just("ROLLBACK"), st.just(()), st.none(), st.integers(-3, 4)),
)
NOTHING = object()


def same(one: Any, other: Any) -> bool:
    """Whether two values are the same to the byte: 1, 1.0 and True are not."""
    return one is other or (
        one is not NOTHING
        and other is not NOTHING
        and json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    )


def at(value: Any, path: tuple[str, ...]) -> Any:
    for oid in path:
        if not isinstance(value, dict) or oid not in value:
            return NOTHING
        value = value[oid]
    return value


def merged(target: Any, patch: Any) -> Any:
    """RFC 7396."""
    if not isinstance(patch, dict):
        return patch
    target = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            target.pop(name, None)
        else:
            target[name] = merged(target.get(name), value)
    return target


class Model:
    """One root: what each version holds."""

    def __init__(self) -> None:
        self.history: list[Any] = []

    @property
    def now(self) -> Any:
        return self.history[-1] if self.history else NOTHING

    def version_of(self, path: tuple[str, ...]) -> int:
        """Of the last version at which something changed at or below `path`."""
        found = len(self.history) - 1
        while found > 0 and same(at(self.history[found - 1], path), at(self.history[found], path)):
            found -= 1
        return found

    def change(self, call: str, path: tuple[str, ...], value: Any, expected: Any) -> tuple[int, Any]:
        """The status, and with 200 what the root holds then."""
        now, present = self.now, at(self.now, path) if self.now is not NOTHING else NOTHING
        if call == "ROLLBACK":
            if now is NOTHING and not self.history:
                return 404, None
            back = expected if expected >= 0 else len(self.history) - 1 + expected
            if not 0 <= back < len(self.history):
                return 404, None
            return 200, self.history[back]
        if expected is not None:
            actual = "absent" if present is NOTHING else self.version_of(path)
            if expected != actual:
                return 409, None
        for n in range(len(path)):
            above = at(now, path[:n]) if now is not NOTHING else NOTHING
            if above is not NOTHING and not isinstance(above, dict):
                return (404, None) if call == "DELETE" else (400, None)
        if call == "DELETE":
            if present is NOTHING:
                return 404, None
            return 200, NOTHING if not path else self._with(path, NOTHING)
        new = merged(None if present is NOTHING else present, value) if call == "PATCH" else value
        if not path and not isinstance(new, dict):
            return 422, None
        return 200, self._with(path, new)

    def _with(self, path: tuple[str, ...], value: Any) -> Any:
        if not path:
            return value
        made: Any = copy.deepcopy(self.now) if self.now is not NOTHING else {}
        inner = made
        for oid in path[:-1]:
            inner = inner.setdefault(oid, {})
        if value is NOTHING:
            del inner[path[-1]]
        else:
            inner[path[-1]] = value
        return made

    def commit(self, new: Any) -> bool:
        """Make it the present; say whether it is a new version."""
        if self.history and same(new, self.now):
            return False
        self.history.append(new)
        return True


def request(bridge: Site, root: str, call: tuple[Any, ...]) -> Answer:
    kind, path, value, expected = call
    if kind == "ROLLBACK":
        return bridge.ask("POST", f"/_rollback?root_oid={root}&backto={expected}")
    query = "" if expected is None else f"?version={expected}"
    body = {} if kind == "DELETE" else {"value": value}
    return bridge.ask(kind, url_of(root, *path) + query, *body.values())


def resolved(call: tuple[Any, ...], model: Model) -> tuple[Any, ...]:
    kind, path, value, expected = call
    if expected == "now":
        present = at(model.now, path) if model.now is not NOTHING else NOTHING
        expected = "absent" if present is NOTHING else model.version_of(path)
    return kind, path, value, expected


roots = iter(range(1_000_000))


@settings(
    max_examples=120,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(calls=st.lists(CALLS, min_size=1, max_size=12))
def test_rest_does_what_the_model_does(bridge: Site, calls: list[tuple[Any, ...]]) -> None:
    root, model = f"diff{next(roots)}", Model()
    for call in calls:
        call = resolved(call, model)
        status, new = model.change(*call)
        answer = request(bridge, root, call)
        assert answer.status == status, (call, answer, model.history)
        if status == 200:
            model.commit(new)
            if answer.json["revision"]:
                assert answer.json["versions"] == {root: len(model.history) - 1}
        else:
            assert answer.json.keys() >= {"error", "message"}
        check(bridge, root, model)


def check(bridge: Site, root: str, model: Model) -> None:
    """What the bridge shows is what the model has, now and at every version."""
    now = model.now
    answer = bridge.ask("GET", f"/{root}/")
    if now is NOTHING:
        assert answer.status == 404
    else:
        assert answer.status == 200 and same(answer.json, now)
        assert int(answer.headers["x-tega-version"]) == len(model.history) - 1
    for version, value in enumerate(model.history):
        old = bridge.ask("GET", f"/{root}/?version={version}")
        assert (old.status == 404) if value is NOTHING else same(old.json, value)
    for path in (("a",), ("a", "b"), ("eth0.100",)):
        value = at(now, path) if now is not NOTHING else NOTHING
        answer = bridge.ask("GET", url_of(root, *path))
        if value is NOTHING:
            assert answer.status == 404
        else:
            assert same(answer.json, value)
            assert int(answer.headers["x-tega-version"]) == model.version_of(path), (path, model.history)


def test_the_model_can_fail(bridge: Site) -> None:
    model = Model()
    model.commit({"a": 1})
    with pytest.raises(AssertionError):
        check(bridge, "not-there", model)
