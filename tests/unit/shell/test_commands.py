"""Each command as it is typed, against a client over a dict."""

from __future__ import annotations

import json
from pathlib import Path as File
from typing import Any

import pytest

from tega_zmq.client.results import Change
from tega_zmq.errors import (
    Collision,
    Compacted,
    InvalidPath,
    InvalidValue,
    NoHandler,
    NotFound,
)
from tega_zmq.runtime import yamlio
from tega_zmq.shell.commands import COMMANDS
from tega_zmq.shell.commands.documents import in_parts
from tega_zmq.shell.run import Quit, overview, run_line
from tega_zmq.shell.spec import Finished, UsageError, build_parser, usage
from tests.unit.shell.conftest import type_

# -- the tree --------------------------------------------------------------------------------------


def test_put_and_get(desk: Any) -> None:
    assert type_(desk, "put a.b {mtu: 1500, name: 'x y'}") == "a@0"
    assert type_(desk, "get a.b") == "mtu: 1500\nname: x y"
    assert type_(desk, "get a.b.mtu") == "1500"
    assert type_(desk, "put a.b.mtu 1500") == "nothing changed"


def test_a_value_is_yaml_and_may_have_several_words(desk: Any) -> None:
    type_(
        desk,
        "put a.b hello   world",
        "put a.c '1'",
        "put a.d x: 1",
        "put a.e -5",
        "put a.f [1, {g: two words}]",
    )
    assert desk.client.tree["a"] == {
        "b": "hello world",
        "c": "1",
        "d": {"x": 1},
        "e": -5,
        "f": [1, {"g": "two words"}],
    }


def test_nothing_in_a_value_is_special(desk: Any) -> None:
    type_(desk, "put a.b x > y | z; w & $HOME")
    assert desk.client.tree["a"]["b"] == "x > y | z; w & $HOME"


def test_options_may_stand_anywhere(desk: Any) -> None:
    type_(
        desk,
        "put a.b 1 --version absent --message 'why not'",
        "put --version 0 a.b -m x 2",
        "put a.b --version 1 3",
    )
    assert [call[2:] for call in desk.client.calls] == [
        (1, "absent", False, "why not"),
        (2, 0, False, "x"),
        (3, 1, False, ""),
    ]


def test_without_a_value_a_body_is_read(desk: Any) -> None:
    desk.body = "mtu: 9000\nlist:\n- 1\n"
    type_(desk, "put a.b")
    assert desk.client.tree["a"]["b"] == {"mtu": 9000, "list": [1]}


def test_an_empty_body_is_no_value(desk: Any) -> None:
    desk.body = " \n"
    with pytest.raises(InvalidValue, match="no value"):
        type_(desk, "put a.b")
    assert desk.client.tree == {}


def test_null_is_a_value(desk: Any) -> None:
    type_(desk, "put a.b null")
    assert desk.client.tree["a"] == {"b": None}
    assert type_(desk, "get a.b") == "null"


def test_a_collision_is_told(desk: Any) -> None:
    type_(desk, "put a.b 1")
    with pytest.raises(Collision, match="version 0, not 7"):
        type_(desk, "put a.b 2 --version 7")


@pytest.mark.parametrize("version", ["-1", "x", "1.5", "", str(2**63)])
def test_an_expected_version_must_be_one(desk: Any, version: str) -> None:
    with pytest.raises(UsageError, match="version"):
        type_(desk, f"put a.b 1 --version={version}")


def test_patch_and_del(desk: Any) -> None:
    type_(desk, "put a {b: 1, c: 2}", "patch a {b: null, d: 3}")
    assert desk.client.tree == {"a": {"c": 2, "d": 3}}
    assert type_(desk, "del a.c") == "a@2"
    with pytest.raises(NotFound):
        type_(desk, "del a.c")


def test_older_versions(desk: Any) -> None:
    type_(desk, "put a.b 1", "put a.b 2", "put a.b 3")
    assert type_(desk, "get a.b@0") == "1"
    assert type_(desk, "get a.b@-1") == "2"
    assert type_(desk, "get a.b@2") == "3"


@pytest.mark.parametrize("path", ["a@1x", "a@", "a@1@2", "a@1.5"])
def test_a_version_must_look_like_one(desk: Any, path: str) -> None:
    with pytest.raises(UsageError, match="no version"):
        type_(desk, f"get {path}")


def test_a_version_has_no_place_where_something_is_written(desk: Any) -> None:
    with pytest.raises(UsageError, match="only where something is read"):
        type_(desk, "put a@1 2")


def test_an_at_in_a_quoted_oid_is_no_version(desk: Any) -> None:
    type_(desk, 'put a."b@3" 1')
    assert type_(desk, 'get a."b@3"@0') == "1"


def test_paths_keep_their_quotes(desk: Any) -> None:
    type_(desk, 'put net."eth0.100".mtu 9000')
    assert desk.client.tree == {"net": {"eth0.100": {"mtu": 9000}}}


@pytest.mark.parametrize("path", ["a..b", "_a", '""', "a.", "a.b c"])
def test_wrong_paths_change_nothing(desk: Any, path: str) -> None:
    with pytest.raises((InvalidPath, UsageError)):
        type_(desk, f"del {path}")
    assert desk.client.revision == 0


def test_ephemeral(desk: Any) -> None:
    type_(desk, "pute presence.me {since: 1}")
    assert desk.client.calls[-1][1:5] == (("presence", "me"), {"since": 1}, None, True)
    assert desk.notes == []
    desk.make("one-shot")
    type_(desk, "pute presence.me 2")
    assert "is gone again" in desk.notes[0]


def test_attributes(desk: Any) -> None:
    type_(desk, "put a.b 1")
    assert yamlio.load(type_(desk, "geta a.b")) == {
        "_oid": "b",
        "_parent": "a",
        "_version": 0,
        "_ephemeral": False,
        "_value": 1,
    }


def test_find(desk: Any) -> None:
    type_(desk, "put config-pi1.net 1")
    assert yamlio.load(type_(desk, r"getr config-(\w+)")) == {
        "config-pi1": {"groups": [["pi1"]], "instance": {"net": 1}}
    }
    assert type_(desk, "getr nothing") == "nothing matches"


# -- changes and messages --------------------------------------------------------------------------


def change(**fields: Any) -> Change:
    base: dict[str, Any] = {
        "path": "a.b", "old": 1, "new": 2, "version": 5, "previous_version": 4, "tega_id": "noc-1",
        "message": "", "time": 0.0, "epoch": "e", "created": False, "deleted": False, "ephemeral": False,
        "reset": False, "backto": None, "oids": ("a", "b"),
    }  # fmt: skip
    return Change(**(base | fields))


def test_sub_covers_the_path_and_the_channel(desk: Any) -> None:
    type_(desk, "sub a.b")
    assert desk.client.calls == [("subscribe", "a.b", False, "global"), ("listen", "a.b", False, "global")]
    desk.client.tell(change(message="jumbo"))
    type_(desk, "pub a.b {level: 3}")
    assert desk.shown == ["a.b: 1 -> 2  (@5 by noc-1: jumbo)", 'a.b: {"level": 3}  (from noc-1)']
    type_(desk, "unsub a.b")
    assert desk.client.subscriptions == []
    with pytest.raises(UsageError, match="not subscribed"):
        type_(desk, "unsub a.b")


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"created": True, "old": None}, "a.b: 2  (@5 by noc-1)"),
        ({"deleted": True, "new": None}, "a.b: deleted, was 1  (@5 by noc-1)"),
        ({"reset": True}, "a.b: 2 (changes before it were missed)  (@5 by noc-1)"),
        ({"reset": True, "deleted": True}, "a.b: deleted  (@5 by noc-1)"),
        ({"backto": 3}, "a.b: 1 -> 2  (@5 by noc-1, rollback to 3)"),
        ({"new": "\x1b[2J\n"}, r'a.b: 1 -> "\u001b[2J\n"  (@5 by noc-1)'),
        ({"message": "x\ny"}, r"a.b: 1 -> 2  (@5 by noc-1: x\x0ay)"),
    ],
)
def test_events_are_one_line(desk: Any, fields: dict[str, Any], expected: str) -> None:
    type_(desk, "sub a")
    desk.client.tell(change(**fields))
    assert desk.shown == [expected]


def test_events_as_json(desk: Any) -> None:
    type_(desk, "sub a --json")
    desk.client.tell(change(deleted=True, new=None, ephemeral=True, backto=2))
    event = json.loads(desk.shown[0])
    assert event["old"] == 1
    assert "new" not in event
    assert event["ephemeral"] is True
    assert event["backto"] == 2


def test_subscribing_twice_is_refused(desk: Any) -> None:
    type_(desk, "sub a", "subr a")
    with pytest.raises(UsageError, match="subscribed to already"):
        type_(desk, "sub a")


def test_unsub_without_a_path_ends_all_of_its_kind(desk: Any) -> None:
    type_(desk, "sub a", "sub b", r"subr c\..*", "unsub")
    assert {entry[0] for entry in desk.client.subscriptions} == {r"c\..*"}
    type_(desk, "unsubr", "unsubr")
    assert desk.client.subscriptions == []


def test_half_a_subscription_is_undone(desk: Any) -> None:
    with pytest.raises(InvalidPath):
        type_(desk, "sub refused")
    assert desk.client.subscriptions == []
    assert desk.session.subscriptions == {}


def test_a_subscription_that_ends_is_told_and_can_be_made_again(desk: Any) -> None:
    for which in (0, 1):
        type_(desk, "sub a")
        desk.session.subscriptions["a", False][which].end(Compacted("gone"))
        assert desk.notes.pop() == "sub a ended: Compacted: gone"
        assert desk.client.subscriptions == []
        assert desk.session.subscriptions == {}


def test_a_subscription_may_end_at_once(desk: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made = desk.client.listen

    def listen(*args: Any, **options: Any) -> Any:
        desk.session.subscriptions["a", False][0].end(Compacted("gone"))
        return made(*args, **options)

    monkeypatch.setattr(desk.client, "listen", listen)
    type_(desk, "sub a")
    assert desk.client.subscriptions == []
    assert desk.session.subscriptions == {}


def test_sub_local(desk: Any) -> None:
    type_(desk, "sub --local a")
    assert desk.client.calls[0] == ("subscribe", "a", False, "local")


def test_pub(desk: Any) -> None:
    assert type_(desk, "pub alerts 1") == "sent to 0 at this node"
    type_(desk, r"subr alerts\..*")
    assert type_(desk, "pub alerts.fire hot") == "sent to 2 at this node"
    assert desk.shown == ["alerts.fire: hot  (from noc-1)"]


# -- documents -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["all.yaml", "all.json"])
def test_what_is_exported_can_be_imported(desk: Any, tmp_path: File, name: str) -> None:
    file = tmp_path / name
    type_(desk, "put a {b: 1, c: {}, 'x.y': [1, {z: null}]}", "put r {s: two}")
    tree = desk.client.tree
    assert type_(desk, f"export . {file}") == f"written to {file}"
    type_(desk, "put a {other: 1}", "del r")
    assert type_(desk, f"import {file}").startswith("5 changes: ")
    assert desk.client.tree == tree
    assert desk.client.entries["a"][0].message == f"import {file}"
    assert type_(desk, f"import {file}") == "nothing changed"


def test_export_leaves_ephemeral_nodes_out(desk: Any) -> None:
    type_(desk, "put a {b: 1, p: {me: 1}}", "put e {x: 1}")
    desk.client.ephemeral = {("a", "p", "me"), ("e",)}
    assert yamlio.load(type_(desk, "export . -")) == {"a": {"b": 1, "p": {}}}
    with pytest.raises(NotFound, match="only ephemeral"):
        type_(desk, "export e -")


def test_export_of_a_part_and_of_a_version(desk: Any) -> None:
    type_(desk, "put a.b.c 1", "put a.b.c 2")
    assert type_(desk, "export a.b@0 -") == "a:\n  b:\n    c: 1"
    assert json.loads(type_(desk, "export a - --json")) == {"a": {"b": {"c": 2}}}


def test_export_reads_what_is_too_large_in_parts_of_one_version(desk: Any) -> None:
    type_(desk, "put a.b {x: 1, y: 2}", "put a.c {z: [1, 2]}")
    desk.client.largest = 20
    desk.client.calls.clear()
    assert yamlio.load(type_(desk, "export a -")) == {"a": {"b": {"x": 1, "y": 2}, "c": {"z": [1, 2]}}}
    assert [call for call in desk.client.calls if call[0] == "get"][1:] == [
        ("get", ("a", "b"), 1),
        ("get", ("a", "c"), 1),
    ]


def test_export_to_where_nothing_can_be_written(desk: Any, tmp_path: File) -> None:
    type_(desk, "put a.b 1")
    with pytest.raises(InvalidValue, match="cannot be written"):
        type_(desk, f"export a {tmp_path / 'no' / 'such'}")
    with pytest.raises(InvalidValue, match="absent/: cannot be written: Is a directory"):
        type_(desk, f"export a {tmp_path}/absent/")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[1]", "expected a map of roots"),
        ("{}", "expected a map of roots"),
        ("a: 1", "the root a must be a map, not int"),
        ("_a: {}", "reserved"),
        ("a: {b: 1, b: 2}", "twice"),
        ("a: !!python/object:os.system {}", "tag"),
        ("a: {", "no YAML"),
    ],
)
def test_a_wrong_document_changes_nothing(desk: Any, tmp_path: File, text: str, said: str) -> None:
    file = tmp_path / "x.yaml"
    file.write_text(text)
    with pytest.raises((InvalidValue, InvalidPath), match=said):
        type_(desk, f"import {file}")
    assert desk.client.revision == 0


def test_a_dry_import_shows_the_difference(desk: Any, tmp_path: File) -> None:
    file = tmp_path / "x.yaml"
    file.write_text("a: {b: 2, c: 3}\n")
    type_(desk, "put a.b 1")
    assert type_(desk, f"import {file} --dry-run") == "  a:\n-   b: 1\n+   b: 2\n+   c: 3"
    assert desk.client.tree == {"a": {"b": 1}}
    file.write_text("a: {b: 1}\n")
    assert type_(desk, f"import {file} --dry-run") == "nothing would change"


def test_an_import_that_is_too_large_for_a_candidate_is_committed_and_compared_here(
    desk: Any, tmp_path: File
) -> None:
    file = tmp_path / "x.json"
    type_(desk, "put a {b: {x: 1, y: 2, 'p.q': 1}, same: [1], leaf: 1}", "put r {s: two}")
    desk.client.ephemeral = {("a", "b", "y")}
    file.write_text(json.dumps({"a": {"b": {"x": 3, "z": {}, "p.q": 1}, "same": [1], "leaf": {}}, "n": {}}))
    whole = [type_(desk, f"import {file} --dry-run {form} --json") for form in ("", "--stat", "--patch")]
    desk.client.largest = 20
    parts = [type_(desk, f"import {file} --dry-run {form} --json") for form in ("", "--stat", "--patch")]
    assert list(map(_in_order, parts)) == list(map(_in_order, whole))
    assert _in_order(parts[0])[0] == {"path": "a.b.x", "old": 1, "new": 3}
    what, _, versions = type_(desk, f"import {file}").partition(": ")
    assert (what, sorted(versions.split())) == ("too much to count the changes", ["a@1", "n@0"])
    assert desk.client.tree == {**json.loads(file.read_text()), "r": {"s": "two"}}
    assert type_(desk, f"import {file} --dry-run") == "nothing would change"
    assert json.loads(type_(desk, f"import {file} --json"))["revision"] == 0


def _in_order(text: str) -> Any:
    found = json.loads(text)
    return sorted(found, key=lambda each: each["path"]) if isinstance(found, list) else found


def test_a_refused_import_cancels_its_transaction(desk: Any, tmp_path: File) -> None:
    file = tmp_path / "x.yaml"
    file.write_text("a: {b: 1}")
    desk.client.fail = Collision("no")
    with pytest.raises(Collision):
        type_(desk, f"import {file}")
    assert desk.client.tree == {}


def test_standard_input_is_a_documents_only_in_one_shots(desk: Any) -> None:
    with pytest.raises(UsageError, match="name a file"):
        type_(desk, "import -")


def test_import_is_no_part_of_an_open_transaction(desk: Any) -> None:
    with pytest.raises(UsageError, match="transaction of its own"):
        type_(desk, "begin", "import x.yaml")


def test_a_large_root_is_put_in_parts() -> None:
    tree = {
        "many": {f"k{n}": {"v": n} for n in range(300)},
        "nulls": {f"n{n}": None for n in range(50)},
        "long": "x" * 2000,
        "small": {"a": 1},
        "empty": {},
    }
    rebuilt: dict[str, Any] = {}
    parts = list(in_parts(("r",), tree, limit=500))
    for kind, path, value in parts:
        place = rebuilt
        for oid in path[:-1]:
            place = place[oid]
        if kind == "put":
            place[path[-1]] = json.loads(json.dumps(value))
        else:
            assert None not in value.values()
            place[path[-1]].update(value)
    assert rebuilt == {"r": tree}
    assert all(len(json.dumps(value)) < 700 for _, path, value in parts if path != ("r", "long"))
    assert list(in_parts(("r",), {"a": None})) == [("put", ("r",), {"a": None})]


def test_what_holds_nulls_is_put_together_as_far_as_there_is_room() -> None:
    tree = {f"n{n}": {"x": n, "y": None} for n in range(100)}
    parts = list(in_parts(("r",), tree, limit=2000))
    assert parts[0][:2] == ("put", ("r",))
    assert len(parts) == 1 + 100 - len(parts[0][2])
    assert len(parts[0][2]) > 50


# -- the fleet -------------------------------------------------------------------------------------


def handler(path: str, **fields: Any) -> dict[str, Any]:
    base = {"kind": "on_change", "method": "apply", "version": None, "error": None, "error_version": None}
    return {"path": path, **base, **fields}


AGENTS = [
    {
        "tega_id": "pi1",
        "state": "connected",
        "heard": 1.5,
        "config": [
            {"root": "config-pi1", "version": 7, "behind": 0},
            {"root": "site", "version": 2, "behind": 3},
        ],
        "operational": [{"root": "ops-pi1", "version": 41, "age": 0.5}],
        "plugins": [
            {
                "name": "net",
                "source": "./plugins",
                "state": "running",
                "error": None,
                "handlers": [
                    handler("config-pi1.net", version=6, error="OSError: no eth9\x1b[0m", error_version=7),
                    handler("config-pi1.dns", version=7),
                    handler("config-pi1.ntp", running_since=1_700_000_000.0),
                    handler("ops-pi1.ping", kind="rpc"),
                ],
            },
            {"name": "broken", "source": "x.py", "state": "failed", "error": "SyntaxError", "handlers": []},
            {"name": "system", "source": "tega_agent", "state": "running", "error": None, "handlers": []},
        ],
        "sessions": ["local-1"],
    },
    {
        "tega_id": "pi2",
        "state": "away",
        "heard": None,
        "config": [
            {"root": "config-pi2", "version": None, "behind": None},
            {"root": "x", "version": 1, "behind": None},
        ],
        "operational": [
            {"root": "ops-pi2", "version": None, "age": None},
            {"root": "ops-new", "version": -1, "age": None},
        ],
        "plugins": ["odd", {"name": "system"}],
        "sessions": [],
    },
]


def test_agents(desk: Any) -> None:
    assert type_(desk, "agents") == "no agents"
    desk.client.listings["agents"] = AGENTS
    shown = type_(desk, "agents")
    assert "config-pi1@7, site@2 (3 behind)" in shown
    assert "config-pi2 (nothing yet), x@1 (starting over)" in shown
    assert "ops-pi2 (nothing yet), ops-new (nothing yet)" in shown
    plugins = [line.split() for line in shown.split("\n\n")[1].splitlines()[1:]]
    assert plugins[0] == [
        "pi1",
        "net",
        "running",
        "config-pi1.net",
        "6",
        *r"at version 7: OSError: no eth9\x1b[0m".split(),
    ]
    assert plugins[1] == ["pi1", "net", "running", "config-pi1.dns", "7", "-"]
    assert plugins[2][:8] == ["pi1", "net", "running", "config-pi1.ntp", "-", "still", "running,", "since"]
    assert plugins[3] == ["pi1", "broken", "failed", "-", "-", "SyntaxError"]
    assert plugins[4] == ["pi1", "system", "running", "-", "-", "-"]
    assert plugins[5:] == [["pi2", "odd", "-", "-", "-", "-"], ["pi2", "system", "-", "-", "-", "-"]]
    assert json.loads(type_(desk, "agents --json")) == AGENTS


@pytest.mark.parametrize(
    "plugins",
    [
        None,
        3,
        [None],
        [[1]],
        {"a": 1},
        [{"name": {"x": 1}, "handlers": [3, {"kind": "on_change", "error_version": []}]}],
    ],
)
def test_agents_may_report_anything(desk: Any, plugins: Any) -> None:
    desk.client.listings["agents"] = [AGENTS[0] | {"plugins": plugins}]
    assert "pi1" in type_(desk, "agents")
    desk.client.listings["plugins"] = plugins
    assert type_(desk, "plugins")


def test_listings(desk: Any) -> None:
    assert type_(desk, "channels") == "no channels"
    desk.client.listings |= {
        "channels": {"alerts": ["noc-1"]},
        "subscribers": {"a": ["noc-1"]},
        "global": {"a": ["x"]},
        "forwarders": [{"tega_id": "pi1", "sessions": ["x"]}],
        "status": {"tega_id": "gateway", "log": "ok"},
        "sessions": [
            {"tega_id": "noc-1", "kind": "shell", "state": "connected", "heard": 70.0, "via": None,
             "queued": 0, "dropped": 2}
        ],
    }  # fmt: skip
    assert yamlio.load(type_(desk, "channels")) == {"alerts": ["noc-1"]}
    assert yamlio.load(type_(desk, "subscribers")) == {"a": ["noc-1"]}
    assert yamlio.load(type_(desk, "global")) == {"a": ["x"]}
    assert yamlio.load(type_(desk, "forwarders")) == [{"tega_id": "pi1", "sessions": ["x"]}]
    assert yamlio.load(type_(desk, "status"))["log"] == "ok"
    assert type_(desk, "ids").split("\n")[1].split() == [
        "noc-1",
        "shell",
        "connected",
        "70",
        "s",
        "ago",
        "-",
        "0",
        "2",
    ]
    assert yamlio.load(type_(desk, "id")) == {
        "tega_id": "shell-1",
        "server": "tcp://node",
        "state": "connected",
    }


@pytest.mark.parametrize(("line", "what"), [("ss", "snapshot"), ("sync", "sync"), ("reload", "reload")])
def test_operations(desk: Any, line: str, what: str) -> None:
    assert yamlio.load(type_(desk, line)) == {"done": what}
    assert desk.client.calls == [("manage", what, "")]


def test_clear_asks_first(desk: Any) -> None:
    with pytest.raises(UsageError, match="nothing was cleared"):
        type_(desk, "clear")
    assert desk.client.calls == []
    desk.answer = True
    type_(desk, "clear")
    desk.answer = False
    type_(desk, "clear --yes")
    assert desk.client.calls == [("manage", "clear", "")] * 2


def test_disown(desk: Any) -> None:
    type_(desk, "disown ops-pi1")
    assert desk.client.calls == [("manage", "disown", "ops-pi1")]
    with pytest.raises(UsageError, match="whole root"):
        type_(desk, "disown ops-pi1.x")


# -- calls, help, and what is no command -------------------------------------------------------------


@pytest.mark.parametrize(
    ("result", "shown"), [(0, "0"), ("", "''"), (False, "false"), (None, "null"), ([], "[]")]
)
def test_falsy_results_are_shown(desk: Any, result: Any, shown: str) -> None:
    desk.client.handlers["a.b.x"] = lambda: result
    assert type_(desk, "a.b.x()") == shown
    desk.make("interactive", as_json=True)
    assert json.loads(type_(desk, "a.b.x()")) == result


def test_calls(desk: Any) -> None:
    desk.client.handlers["tools.add"] = lambda a, b: a + b
    assert type_(desk, "tools.add(1, b=2)") == "3"
    type_(desk, "tools.add(1, b=2, timeout=7)")
    assert desk.client.calls[-1] == ("call", "tools.add", (1,), {"b": 2}, 7)
    run_line(desk.session, "tools.add(1, b=2)", 3.0)
    assert desk.client.calls[-1][4] == 3.0
    with pytest.raises(UsageError, match="timeout"):
        type_(desk, "tools.add(1, b=2, timeout='soon')")
    with pytest.raises(NoHandler):
        type_(desk, "nobody.home()")


@pytest.mark.parametrize("line", ["", "   ", "# a remark", "  # another"])
def test_empty_lines_and_remarks_do_nothing(desk: Any, line: str) -> None:
    assert type_(desk, line) == ""


@pytest.mark.parametrize(("line", "said"), [
    ("gte a", "did you mean get"), ("frobnicate", "`help` lists"), ("get", "required: PATH"),
    ("get a b", "unrecognized"), ("put a {b", "not closed"), ("get a --nope", "unrecognized"),
    ("log a -n 0", "below 1"), ("get a '", "not closed"), ("roots a", "unrecognized"),
    ("help nope", "no command"),
])  # fmt: skip
def test_wrong_usage(desk: Any, line: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        type_(desk, line)


@pytest.mark.parametrize("line", ["q", "quit"])
def test_quit(desk: Any, line: str) -> None:
    with pytest.raises(Quit):
        type_(desk, line)


def test_help(desk: Any) -> None:
    assert "  put " in type_(desk, "h")
    assert "absent" in type_(desk, "help put")
    assert json.loads(type_(desk, "help put --json"))["name"] == "put"
    with pytest.raises(Finished):
        type_(desk, "get --help")


@pytest.mark.parametrize("command", COMMANDS.values(), ids=lambda command: command.name)
def test_every_command_is_told_well(command: Any) -> None:
    assert not command.summary.endswith(".")
    assert command.name in overview()
    text = build_parser(command).format_help()
    for argument in command.arguments:
        assert argument.name in usage(command)
        assert argument.help.split()[0] in text
    for example in command.examples:
        assert example.split()[0] == command.name


EXPECTED = """
    put pute patch get geta getr del schema begin cand check commit cancel use transactions roots old log diff
    rollback undo tag untag tags blame edges
    sub subr unsub unsubr pub agents status import export backup restore id ids plugins reload sync ss
    clear disown channels subscribers forwarders global
""".split()


def test_the_commands_are_those_of_the_contract() -> None:
    assert sorted(COMMANDS) == sorted(EXPECTED)
