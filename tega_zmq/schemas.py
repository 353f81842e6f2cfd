"""Schemas: what the data at some paths must look like.

They are data themselves, in the root `_schema`, and so have versions, a log, tags and rollbacks as all data
has: the oid below that root is a regex as `find` takes it, what stands there a JSON Schema (2020-12,
https://json-schema.org/draft/2020-12/json-schema-core). A commit that would leave data which breaks a schema
is refused, and so is a schema that present data breaks.

What a schema can do is bounded, since who writes one could otherwise stop the node: no reference leaves the
document, regexes are of the kind that `patterns` accepts, and the work of a check is counted as it is done,
in half microseconds, and ends at `MAX_WORK`: each application of a subschema and of a keyword, each item that
is compared, each regex by what it may cost on a text of that length, each error by its length and the levels
that it passes on its way up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Any, Final, TypeAlias

from tega_zmq.errors import InvalidValue
from tega_zmq.matching import matching_below, reaches
from tega_zmq.paths import SCHEMAS, Path, format_path
from tega_zmq.patterns import MAX_TEXT, Search, compile_oids, compile_search
from tega_zmq.store import Store, Update
from tega_zmq.tree import Node, get, is_container, plain

__all__ = ["DIALECT", "MAX_SHOWN", "MAX_WORK", "Schema", "broken", "refusal", "table"]

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"

MAX_WORK: Final = 1_000_000
"""The most that one value may cost to check, and a document to compile, in half microseconds."""

MAX_NESTED: Final = 32
"""Most containers within one another in a schema."""

MAX_DEPTH: Final = 128
"""Most keywords that are applied within one another. Far from the interpreter's own limit, which a library
may meet with more than an exception."""

MAX_COMMIT: Final = 4_000_000
"""The most that all of one commit may cost to check, in half microseconds."""

MAX_NAMES: Final = 40_000
"""The most characters that the regexes of all schemas together may have."""

MAX_REFERENCE: Final = 1000
"""The most characters of a reference, and of what it may refer to by name."""

MAX_SHOWN: Final = 20
"""Most violations that are told."""

# What things cost, in half microseconds; measured with jsonschema 4.26 and rounded up.
_SUBSCHEMA: Final = 20
_KEYWORD: Final = 10
_REFERENCE: Final = 40
_SEGMENT: Final = 10
_ERROR: Final = 20
_PASS: Final = 5
_LEAF: Final = 3
_FRACTION: Final = 60

# The same of the check whether a document is a schema at all.
_PART: Final = 700
_KEY: Final = 200
_SCALAR: Final = 25
_TYPE: Final = 200
_CHARACTER: Final = 200
_RANGE: Final = 2

_NAMES: Final = frozenset({"$id", "$ref", "$dynamicRef", "$anchor", "$dynamicAnchor"})
_FORMATS: Final = ("date", "email", "ipv4", "ipv6", "uuid")
"""Formats that are checked; all others say nothing."""


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
            self.spent = work.spent
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
    size = sum(map(len, root[1]))
    if size > MAX_NAMES:
        where = format_path((SCHEMAS,))
        raise InvalidValue(
            f"{where}: the regexes of all schemas have {size} characters; {MAX_NAMES} are allowed", path=where
        )
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
    work = _Work()
    work.begin(MAX_COMMIT)
    changed = {
        change.path[1] if len(change.path) > 1 else None
        for update in updates
        if update.root == SCHEMAS
        for change in update.changes
    }
    for schema in schemas:
        try:
            if None in changed or schema.name in changed:
                work.spend(schema.compile()[1].compiling)
                paths: Iterable[Path] = _present(schema, state, work.spend)
            else:
                paths = _touched(schema, state, updates, work.spend)
            for path in paths:
                _look_at(schema, state, path, work, found)
                if len(found) >= MAX_SHOWN:
                    return found[:MAX_SHOWN]
        except _TooMuch:
            where = format_path((SCHEMAS, schema.name))
            why = f"{where}: to check all that is to be checked takes too much work; commit less at a time"
            return [*found, InvalidValue(why, path=where)]
    return found


def _look_at(schema: Schema, state: Store, path: Path, work: _Work, found: list[InvalidValue]) -> None:
    """Add to `found` how what stands at `path` breaks `schema`, if anything does. Raises `_TooMuch`."""
    root = state.roots[path[0]]
    node = get(root.node, path[1:]) if root.node is not None else None
    if node is None:
        return
    reading = _Work()
    reading.begin(min(MAX_WORK, work.left))
    try:
        _count_leaves(node, reading)
    except _TooMuch:
        where = format_path(path)
        found.append(
            InvalidValue(f"{where}: is too large to be checked by the schema {schema.name}", path=where)
        )
    else:
        found += schema.problems(path, plain(node), max(0, min(MAX_WORK, work.left)))
        work.spend(schema.spent + _KEYWORD)
    work.spend(reading.spent)


def _count_leaves(node: Node, work: _Work) -> None:
    waiting = [node]
    while waiting:
        each = waiting.pop()
        if is_container(each):
            work.spend(_LEAF * len(each[1]))
            waiting.extend(each[1].values())


def refusal(found: Sequence[InvalidValue]) -> InvalidValue:
    """Return the one error that tells of `found`, which is not empty."""
    if len(found) == 1:
        return found[0]
    many = f"{len(found)} or more" if len(found) == MAX_SHOWN else str(len(found))
    return InvalidValue(
        f"{many} places break a schema: {'; '.join(each.message for each in found)}", path=found[0].path
    )


def _present(schema: Schema, state: Store, spend: Callable[[int], None]) -> Iterator[Path]:
    for name, root in sorted(state.roots.items(), key=lambda pair: pair[0]):
        if name != SCHEMAS and root.node is not None:
            spend(schema.pattern.cost(0, name))
            yield from matching_below(schema.pattern, (name,), root.node, spend)


def _touched(
    schema: Schema, state: Store, updates: Sequence[Update], spend: Callable[[int], None]
) -> Iterable[Path]:
    pattern = schema.pattern
    depth = len(pattern.oids)
    paths: dict[Path, None] = {}
    for update in updates:
        if update.root == SCHEMAS:
            continue
        for change in update.changes:
            at = change.path[:depth]
            spend(sum(map(pattern.cost, range(depth), at)))
            if not reaches(pattern, at):
                continue
            if len(at) == depth:
                paths[at] = None
            else:
                found = matching_below(pattern, at, state.roots[update.root].node, spend)
                paths.update(dict.fromkeys(found))
    return paths


# -- a document becomes a check --------------------------------------------------------------------


class _TooMuch(Exception):
    pass


class _Work:
    """What is left of the work that one check may be, and how deep it is in."""

    def __init__(self) -> None:
        self.most = self.left = self.depth = 0
        self.compiling = 0
        """What it has cost to make the check."""

    def begin(self, most: int) -> None:
        self.most = self.left = most
        self.depth = 0

    @property
    def spent(self) -> int:
        return self.most - self.left

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
        from jsonschema.exceptions import SchemaError
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
    work = _Work()
    work.begin(MAX_WORK)
    look = _Look(where, work)
    try:
        look.through(document, 0)
    except _TooMuch:
        raise InvalidValue(
            f"{where}: is too large: to check that it is a schema takes too much work", path=where
        ) from None
    work.compiling = work.spent
    try:
        Draft202012Validator.check_schema(document)
    except SchemaError as error:
        at = "".join(f".{each}" for each in error.absolute_path)
        raise InvalidValue(f"{where}{at}: no JSON Schema: {error.message:.200}", path=where) from None
    ours = {
        "pattern": partial(_pattern, work, look.regexes),
        "patternProperties": partial(_pattern_properties, work, look.regexes),
        "additionalProperties": partial(_additional_properties, work, look.regexes),
        "uniqueItems": partial(_unique_items, work),
        "const": partial(_const, work),
        "enum": partial(_enum, work),
    }
    keywords = {**Draft202012Validator.VALIDATORS, **ours}
    cls: Any = validators.extend(
        Draft202012Validator,
        {name: partial(_keyword, work, _loops(name, look), check) for name, check in keywords.items()},
    )
    # These two are where the library begins to apply a subschema, keywords or not.
    cls.descend = _counted(work, cls.descend)
    cls.iter_errors = _counted(work, cls.iter_errors, top=True)
    validator = cls(document, registry=Registry(), format_checker=FormatChecker(_FORMATS))
    return validator.iter_errors, work


class _Look:
    """What is found out about a document before it is used."""

    def __init__(self, where: str, work: _Work) -> None:
        self.regexes: dict[str, Search] = {}
        self.parts = 0
        """Its containers."""
        self.named = False
        """Whether references may go by a name; the library looks for it in all of the document each time."""
        self._where = where
        self._work = work

    def through(self, part: Any, depth: int) -> None:
        """Raise `InvalidValue` for what could reach out of the document or take long, wherever it stands.

        A reference may lead to any place in the document, so what only looks like a keyword counts as one.
        Raises `_TooMuch` if the library would take too long with it.
        """
        if depth > MAX_NESTED:
            raise self._wrong(f"more than {MAX_NESTED} containers within one another")
        kind = type(part)
        self._work.spend(_PART if kind in (dict, list, bool) else _SCALAR)
        if kind in (dict, list):
            self.parts += 1
        if kind is list:
            for each in part:
                self.through(each, depth + 1)
        if kind is not dict:
            return
        for key, value in part.items():
            self._key(key, value)
            self.through(value, depth + 1)

    def _key(self, key: str, value: Any) -> None:
        self._work.spend(_KEY + (_TYPE * len(value) if key == "type" and type(value) is list else 0))
        if key == "dependencies" and type(value) is dict:
            self._work.spend(3 * _PART * len(value))  # of an older dialect: the library tries it both ways
        if key in _NAMES and type(value) is str:
            if len(value) > MAX_REFERENCE:
                raise self._wrong(f"{key} {value[:80]!a}...: at most {MAX_REFERENCE} characters are allowed")
            if key in ("$ref", "$dynamicRef"):
                if not value.startswith("#"):
                    raise self._wrong(
                        f"{key} {value[:80]!a}: a reference must begin with # and stay in the document;"
                        " nothing is fetched"
                    )
                self.named = self.named or value[1:2] not in ("", "/")
            self.named = self.named or key == "$id"
        if key == "$schema":
            raise self._wrong("$schema may only stand at the top")
        if key in ("unevaluatedProperties", "unevaluatedItems"):
            raise self._wrong(
                f"{key} is not supported, since its work cannot be bounded; use additionalProperties or items"
            )
        if key == "pattern" and type(value) is str:
            self._regex(key, value)
        elif key == "patternProperties" and type(value) is dict:
            for each in value:
                self._regex(key, each)

    def _regex(self, key: str, regex: str) -> None:
        self._work.spend(_CHARACTER * len(regex))
        try:
            search = self.regexes[regex] = compile_search(regex)
        except InvalidValue as error:
            raise self._wrong(f"{key}: {error.message}") from None
        self._work.spend(_RANGE * search.ranges)

    def _wrong(self, what: str) -> InvalidValue:
        return InvalidValue(f"{self._where}: {what}", path=self._where)


# -- what is counted -------------------------------------------------------------------------------


def _counted(work: _Work, apply: Any, *, top: bool = False) -> Any:
    """Return `apply`, a method of the library that applies a subschema, with its work counted."""

    def run(validator: Any, instance: Any, schema: Any = None, *args: Any, **named: Any) -> Any:
        if top:
            schema = validator.schema
        work.spend(_SUBSCHEMA + (len(schema) // 2 if type(schema) is dict else 0))
        if schema is False:
            _weigh(work, instance)  # the error that it makes shows it
        return apply(validator, instance) if top else apply(validator, instance, schema, *args, **named)

    return run


def _keyword(
    work: _Work,
    loops: Callable[[Any, Any], int] | None,
    check: Any,
    validator: Any,
    limit: Any,
    value: Any,
    schema: Any,
) -> Iterator[Any]:
    """Apply one keyword by `check`; `loops` tells what that costs beside what it applies in its turn."""
    work.spend(_KEYWORD if loops is None else _KEYWORD + loops(limit, value))
    work.enter()
    try:
        for error in check(validator, limit, value, schema) or ():
            if "counted" not in vars(error):
                error.counted = True
                # It shows the value, and what was wanted.
                work.spend(_ERROR + len(error.message) // 8)
            work.spend(_PASS)
            yield error
    finally:
        work.depth -= 1


def _loops(keyword: str, look: _Look) -> Callable[[Any, Any], int] | None:
    if keyword in ("properties", "required", "dependentSchemas"):
        return lambda limit, _: len(limit) // 4
    if keyword == "dependentRequired":
        return lambda limit, _: sum(map(len, limit.values())) // 4 + len(limit)
    if keyword == "format":
        return lambda _, value: len(value) // 8 if type(value) is str else 0
    if keyword == "multipleOf":
        return lambda limit, value: _FRACTION if float in (type(limit), type(value)) else 0
    if keyword in ("$ref", "$dynamicRef"):
        # By a name it is looked for in all of the document, and a dynamic one from each level above.
        search = (
            _SUBSCHEMA * look.parts * (MAX_NESTED if keyword == "$dynamicRef" else 1) if look.named else 0
        )
        return lambda limit, _: _REFERENCE + search + _SEGMENT * limit.count("/") + len(limit) // 8
    return None


def _weigh(work: _Work, value: Any) -> None:
    """Count what it costs to show `value`."""
    kind = type(value)
    work.spend(1 + (len(value) // 32 if kind is str else 0))
    if kind is list:
        for each in value:
            _weigh(work, each)
    elif kind is dict:
        for key, each in value.items():
            work.spend(1 + len(key) // 32)
            _weigh(work, each)


# -- keywords that the library would apply in another way, or without end ---------------------------


def _error(message: str) -> Any:
    from jsonschema.exceptions import ValidationError

    return ValidationError(message)


def _finds(work: _Work, regexes: dict[str, Search], regex: str, text: str) -> bool:
    if len(text) > MAX_TEXT:
        raise InvalidValue(f"{text[:40]!r}... has {len(text)} characters; a regex takes up to {MAX_TEXT}")
    search = regexes[regex]
    work.spend(4 + search.cost(text))
    return search.found(text)


def _pattern(
    work: _Work, regexes: dict[str, Search], _validator: Any, regex: str, text: Any, _schema: Any
) -> Iterator[Any]:
    if type(text) is not str:
        return
    if len(text) > MAX_TEXT:
        yield _error(f"{text[:40]!r}... has {len(text)} characters; `pattern` checks up to {MAX_TEXT}")
    elif not _finds(work, regexes, regex, text):
        yield _error(f"{text!r} does not match {regex!r}")


def _pattern_properties(
    work: _Work, regexes: dict[str, Search], validator: Any, schemas: Any, value: Any, _schema: Any
) -> Iterator[Any]:
    if type(value) is not dict:
        return
    for regex, schema in schemas.items():
        for oid, item in value.items():
            if _finds(work, regexes, regex, oid):
                yield from validator.descend(item, schema, path=oid, schema_path=regex)


def _additional_properties(
    work: _Work, regexes: dict[str, Search], validator: Any, wanted: Any, value: Any, schema: Any
) -> Iterator[Any]:
    if type(value) is not dict:
        return
    known, by_regex = schema.get("properties", {}), schema.get("patternProperties", {})
    extra = []
    for oid, item in value.items():
        work.spend(1)
        if oid in known or any(_finds(work, regexes, regex, oid) for regex in by_regex):
            continue
        if wanted is False:
            extra.append(oid)
        else:
            yield from validator.descend(item, wanted, path=oid)
    if extra:
        yield _error(f"not allowed: {', '.join(map(repr, sorted(extra)))}")


def _unique_items(work: _Work, _validator: Any, wanted: Any, items: Any, _schema: Any) -> Iterator[Any]:
    if wanted and type(items) is list and len({_canonical(work, each) for each in items}) < len(items):
        yield _error("two of its items are equal")


def _const(work: _Work, _validator: Any, wanted: Any, value: Any, _schema: Any) -> Iterator[Any]:
    if not _equal(work, wanted, value):
        yield _error(f"{wanted!r} was expected")


def _enum(work: _Work, _validator: Any, wanted: Any, value: Any, _schema: Any) -> Iterator[Any]:
    if not any(_equal(work, each, value) for each in wanted):
        yield _error(f"{value!r} is not one of {wanted!r}")


def _equal(work: _Work, one: Any, other: Any) -> bool:
    """Whether two values are equal as JSON has it: 1 and 1.0 are, 1 and true are not."""
    work.spend(2)
    kind = type(one)
    if kind is bool or type(other) is bool:
        return one is other
    if kind is str and type(other) is str:
        if len(one) != len(other):
            return False
        work.spend(len(one) // 1024)
    if kind is list and type(other) is list:
        return len(one) == len(other) and all(
            _equal(work, each, its) for each, its in zip(one, other, strict=True)
        )
    if kind is dict and type(other) is dict:
        return len(one) == len(other) and all(
            key in other and _equal(work, each, other[key]) for key, each in one.items()
        )
    return bool(one == other)


def _canonical(work: _Work, value: Any) -> str:
    """Return a text that is the same for equal values, and only for these.

    A text, since its hash depends on a secret of the process: numbers with one hash are easy to find, and
    would make a set of them slow.
    """
    work.spend(4)
    kind = type(value)
    if kind is str:
        work.spend(len(value) // 64)
        return repr(value)
    if kind is list:
        return f"[{','.join([_canonical(work, each) for each in value])}]"
    if kind is dict:
        return f"{{{','.join([f'{key!r}:{_canonical(work, value[key])}' for key in sorted(value)])}}}"
    # No whole number has more than 64 bits.
    return repr(int(value)) if kind is float and value.is_integer() and abs(value) < 2**64 else repr(value)
