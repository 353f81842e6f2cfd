"""Schemas: what the data at some paths must look like.

They are data themselves, in the root `_schema`, and so have versions, a log, tags and rollbacks as all data
has: the oid below that root is a regex as `find` takes it, what stands there a JSON Schema (2020-12,
https://json-schema.org/draft/2020-12/json-schema-core). A commit that would leave data which breaks a schema
is refused, and so is a schema that present data breaks.

What a schema can do is bounded, since who writes one could otherwise stop the node: no reference leaves the
document, regexes are of the kind that `patterns` accepts, and one check takes at most `MAX_WORK`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, Final, TypeAlias

from tega_zmq.errors import InvalidValue
from tega_zmq.matching import matching_below, reaches
from tega_zmq.paths import SCHEMAS, Path, format_path
from tega_zmq.patterns import MAX_TEXT, compile_oids, compile_search
from tega_zmq.store import Store, Update
from tega_zmq.tree import Node, get, is_container, plain

__all__ = ["DIALECT", "MAX_SHOWN", "MAX_WORK", "Schema", "broken", "refusal", "table"]

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"

MAX_WORK: Final = 1_000_000
"""The most that one value may cost to check; applying one keyword costs `_KEYWORD`. About half a second."""

MAX_NESTED: Final = 32
"""Most containers within one another in a schema."""

MAX_DEPTH: Final = 128
"""Most keywords that are applied within one another. Far from the interpreter's own limit, which a library
may meet with more than an exception."""

MAX_COMMIT: Final = 4_000_000
"""The most that all values of one commit may cost to check."""

MAX_SHOWN: Final = 20
"""Most violations that are told."""

_KEYWORD: Final = 10
_FORMATS: Final = ("date", "email", "ipv4", "ipv6", "uuid")
"""Formats that are checked; all others say nothing."""

_BY_PATTERN: Final = frozenset({"patternProperties", "additionalProperties"})


class Schema:
    """One schema. Compiled when it is used first."""

    __slots__ = ("_check", "name", "node", "pattern", "spent")

    def __init__(self, name: str, node: Node) -> None:
        """`name`: the regex of the paths, `node`: the document in the tree. Raises `InvalidValue`."""
        self.name = name
        self.node = node
        self.pattern = compile_oids(name)
        self.spent = 0
        """What the last check has cost."""
        self._check: _Check | None = None

    def compile(self) -> _Check:
        """Return what yields the errors of a value. Raises `InvalidValue`: the document is no schema."""
        if self._check is None:
            where = format_path((SCHEMAS, self.name))
            self._check = _compiled(plain(self.node), where)
        return self._check

    def problems(self, path: Path, value: Any, most: int = MAX_WORK) -> list[InvalidValue]:
        """Return how `value`, at `path`, breaks the schema; it may cost `most`. Raises as `compile`."""
        check, work = self.compile()
        work.begin(most)
        try:
            found = [self._problem(path, error) for error in islice(check(value), MAX_SHOWN)]
            return sorted(found, key=lambda each: (each.path or "", each.message))
        except _TooMuch as error:
            why = str(error)
        except InvalidValue as error:
            why = f"cannot be applied: {error.message}"
        except Exception as error:  # noqa: BLE001  # what a library makes of a hostile schema is no reason to stop
            why = f"cannot be applied: {type(error).__name__}: {error!s:.200}"
        finally:
            self.spent = most - work.left
        where = format_path(path)
        return [InvalidValue(f"{where}: to check it by the schema {self.name} {why}", path=where)]

    def _problem(self, path: Path, error: Any) -> InvalidValue:
        where, rest = list(path), list(error.absolute_path)
        while rest and type(rest[0]) is str:
            where.append(rest.pop(0))
        at = format_path(tuple(where)) + "".join(f"[{each}]" for each in rest)
        what = error.message if len(error.message) <= 200 else error.message[:199] + "…"
        rule = "false" if error.validator is None else error.validator
        return InvalidValue(f"{at}: {what} (rule {rule} of the schema {self.name})", path=at)


def table(root: Node | None, before: Sequence[Schema]) -> tuple[Schema, ...]:
    """Return the schemas in the tree `root`; those of `before` that did not change are used again.

    Raises `InvalidValue`: an oid is no regex.
    """
    if root is None or not is_container(root):
        return ()
    known = {each.name: each for each in before}
    found = []
    for name, node in sorted(root[1].items(), key=lambda pair: pair[0]):
        old = known.get(name)
        found.append(old if old is not None and old.node is node else Schema(name, node))
    return tuple(found)


def broken(schemas: Iterable[Schema], state: Store, updates: Sequence[Update]) -> list[InvalidValue]:
    """Return what of `state` breaks a schema, as far as the last commit, `updates`, can have to do with it.

    At most `MAX_SHOWN`. Raises `InvalidValue`: a schema that `updates` sets is none.
    """
    found: list[InvalidValue] = []
    left = MAX_COMMIT
    changed = {
        change.path[1] if len(change.path) > 1 else None
        for update in updates
        if update.root == SCHEMAS
        for change in update.changes
    }
    for schema in schemas:
        if None in changed or schema.name in changed:
            schema.compile()
            paths: Iterable[Path] = _present(schema, state)
        else:
            paths = _touched(schema, state, updates)
        for path in paths:
            root = state.roots[path[0]]
            node = get(root.node, path[1:]) if root.node is not None else None
            if node is not None:
                found += schema.problems(path, plain(node), max(0, min(MAX_WORK, left)))
                left -= schema.spent + _KEYWORD
            if len(found) >= MAX_SHOWN:
                return found[:MAX_SHOWN]
    return found


def refusal(found: Sequence[InvalidValue]) -> InvalidValue:
    """Return the one error that tells of `found`, which is not empty."""
    if len(found) == 1:
        return found[0]
    many = f"{len(found)} or more" if len(found) == MAX_SHOWN else str(len(found))
    return InvalidValue(
        f"{many} places break a schema: {'; '.join(each.message for each in found)}", path=found[0].path
    )


def _present(schema: Schema, state: Store) -> Iterator[Path]:
    for name, root in sorted(state.roots.items(), key=lambda pair: pair[0]):
        if name != SCHEMAS and root.node is not None:
            yield from matching_below(schema.pattern, (name,), root.node)


def _touched(schema: Schema, state: Store, updates: Sequence[Update]) -> Iterable[Path]:
    depth = len(schema.pattern.oids)
    paths: dict[Path, None] = {}
    for update in updates:
        if update.root == SCHEMAS:
            continue
        for change in update.changes:
            at = change.path[:depth]
            if not reaches(schema.pattern, at):
                continue
            if len(at) == depth:
                paths[at] = None
            else:
                paths.update(dict.fromkeys(matching_below(schema.pattern, at, state.roots[update.root].node)))
    return paths


# -- a document becomes a check --------------------------------------------------------------------


class _TooMuch(Exception):
    pass


class _Work:
    """What is left of the work that one check may be, and how deep it is in."""

    def __init__(self) -> None:
        self.left = self.depth = 0

    def begin(self, most: int) -> None:
        self.left, self.depth = most, 0

    def spend(self, amount: int) -> None:
        self.left -= amount
        if self.left < 0:
            raise _TooMuch("takes too much work")

    def enter(self) -> None:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise _TooMuch("goes too deep, or refers to itself without end")


_Check: TypeAlias = tuple[Callable[[Any], Iterator[Any]], _Work]
"""What yields the errors of a value, and what it may cost."""


def _compiled(document: Any, where: str) -> _Check:
    try:
        # Here, since most nodes have no schemas, and some not the library.
        from jsonschema import Draft202012Validator, FormatChecker, validators
        from jsonschema.exceptions import SchemaError, ValidationError
        from referencing import Registry
    except ImportError:
        raise InvalidValue(
            f"{where}: this node cannot check schemas: install jsonschema (pip install 'tega-zmq[schema]')",
            path=where,
        ) from None
    if type(document) is dict:
        dialect = document.pop("$schema", DIALECT)
        if dialect not in (DIALECT, DIALECT + "#"):
            raise InvalidValue(f"{where}: $schema {dialect!a:.80}: only {DIALECT} is understood", path=where)
    elif type(document) is not bool:
        raise InvalidValue(f"{where}: a schema is a map, or true or false", path=where)
    _look_through(document, where, 0)
    try:
        Draft202012Validator.check_schema(document)
    except SchemaError as error:
        at = "".join(f".{each}" for each in error.absolute_path)
        raise InvalidValue(f"{where}{at}: no JSON Schema: {error.message:.200}", path=where) from None
    work = _Work()

    def pattern(_validator: Any, regex: str, text: Any, _schema: Any) -> Iterator[Any]:
        if type(text) is not str:
            return
        search = compile_search(regex)
        work.spend(search.cost // 200)
        if len(text) > MAX_TEXT:
            yield ValidationError(
                f"{text[:40]!r}... has {len(text)} characters; `pattern` checks up to {MAX_TEXT}"
            )
        elif search.pattern.match(text) is None:
            yield ValidationError(f"{text!r} does not match {regex!r}")

    def pattern_properties(validator: Any, schemas: Any, value: Any, _schema: Any) -> Iterator[Any]:
        if type(value) is not dict:
            return
        for regex, schema in schemas.items():
            search = compile_search(regex).pattern
            for oid, item in value.items():
                if search.match(oid) is not None:
                    yield from validator.descend(item, schema, path=oid, schema_path=regex)

    def unique(_validator: Any, wanted: Any, items: Any, _schema: Any) -> Iterator[Any]:
        if wanted and type(items) is list and len(set(map(_hashable, items))) < len(items):
            yield ValidationError("two of its items are equal")

    def counted(keyword: str, check: Any) -> Any:
        def run(validator: Any, limit: Any, value: Any, schema: Any) -> Iterator[Any]:
            work.spend(_KEYWORD + (len(limit) if keyword in ("enum", "required") else 0))
            if keyword in _BY_PATTERN and type(value) is dict:
                regexes = schema.get("patternProperties", {})
                work.spend(len(value) * (1 + sum(compile_search(each).cost // 200 for each in regexes)))
            work.enter()
            try:
                yield from check(validator, limit, value, schema) or ()
            finally:
                work.depth -= 1

        return run

    keywords = {
        **Draft202012Validator.VALIDATORS,
        "pattern": pattern,
        "patternProperties": pattern_properties,
        "uniqueItems": unique,
    }
    cls: Any = validators.extend(
        Draft202012Validator, {name: counted(name, check) for name, check in keywords.items()}
    )
    validator = cls(document, registry=Registry(), format_checker=FormatChecker(_FORMATS))

    return validator.iter_errors, work


def _look_through(part: Any, where: str, depth: int) -> None:
    """Raise `InvalidValue` for what could reach out of the document or take long, wherever it stands in it.

    A reference may lead to any place in the document, so what only looks like a keyword counts as one.
    """
    if depth > MAX_NESTED:
        raise InvalidValue(f"{where}: more than {MAX_NESTED} containers within one another", path=where)
    if type(part) is list:
        for each in part:
            _look_through(each, where, depth + 1)
    if type(part) is not dict:
        return
    for key, value in part.items():
        if key in ("$ref", "$dynamicRef") and type(value) is str and not value.startswith("#"):
            raise InvalidValue(
                f"{where}: {key} {value[:80]!a}: a reference must begin with # and stay in the document;"
                " nothing is fetched",
                path=where,
            )
        if key == "$schema":
            raise InvalidValue(f"{where}: $schema may only stand at the top", path=where)
        if key in ("unevaluatedProperties", "unevaluatedItems"):
            raise InvalidValue(
                f"{where}: {key} is not supported, since its work cannot be bounded; use additionalProperties"
                " or items",
                path=where,
            )
        try:
            if key == "pattern" and type(value) is str:
                compile_search(value)
            elif key == "patternProperties" and type(value) is dict:
                for each in value:
                    compile_search(each)
        except InvalidValue as error:
            raise InvalidValue(f"{where}: {key}: {error.message}", path=where) from None
        _look_through(value, where, depth + 1)


def _hashable(value: Any) -> Any:
    """Return what is equal for equal values of JSON: 1 and 1.0 are, 1 and true are not."""
    if type(value) is list:
        return ("list", tuple(map(_hashable, value)))
    if type(value) is dict:
        return ("dict", frozenset((key, _hashable(each)) for key, each in value.items()))
    return ("bool", value) if type(value) is bool else value
