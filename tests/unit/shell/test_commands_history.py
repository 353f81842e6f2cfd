"""Transactions and versions as they are typed, against a client over a dict."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tega_zmq.client.results import Blamed, Difference, Gap
from tega_zmq.errors import (
    Collision,
    NotFound,
    Timeout,
    TransactionExpired,
)
from tega_zmq.runtime import yamlio
from tega_zmq.shell.spec import UsageError
from tests.unit.shell.conftest import type_

# -- transactions ----------------------------------------------------------------------------------


def test_a_transaction_takes_the_writes_and_shows_them(desk: Any) -> None:
    type_(desk, "put a.b 1", "put r.x 0", "put r.x 1")
    assert type_(desk, "begin").startswith("transaction ")
    assert type_(desk, "put a.b 2", "pute a.e 3", "patch a {c: 4}", "del a.b", "rollback r 0") == ""
    assert type_(desk, "get a") == "c: 4\ne: 3"
    assert type_(desk, "get a@0") == "b: 1"
    assert yamlio.load(type_(desk, "getr a"))["a"]["instance"] == {"c": 4, "e": 3}
    assert desk.client.tree == {"a": {"b": 1}, "r": {"x": 1}}
    assert type_(desk, "commit -m 'all of it'") in ("a@1 r@2", "r@2 a@1")
    assert desk.client.tree == {"a": {"c": 4, "e": 3}, "r": {"x": 0}}
    assert desk.client.entries["a"][0].message == "all of it"
    assert desk.session.transaction is None


def test_the_candidate_is_shown_as_tree_and_as_diff(desk: Any) -> None:
    type_(desk, "put a {b: 1, c: {d: 2}}", "begin")
    assert type_(desk, "cand") == "nothing changed so far"
    shown = type_(desk, "put a.b 5", "del a.c", "put a.n {x: {}, y: two}", "cand")
    tree, changes = shown.split("\n\n")
    assert yamlio.load(tree) == {"a": {"b": 5, "n": {"x": {}, "y": "two"}}}
    assert sorted(changes.split("\n")) == [
        "+ a.b: 5",
        "+ a.n.x: {}",
        "+ a.n.y: two",
        "- a.b: 1",
        "- a.c.d: 2",
    ]
    data = json.loads(type_(desk, "cand --json"))
    assert {"path": "a.c", "old": {"d": 2}} in data["changes"]


def test_cancel(desk: Any) -> None:
    type_(desk, "begin", "put a.b 1", "cancel")
    assert desk.client.tree == {}
    with pytest.raises(UsageError, match="no transaction is open"):
        type_(desk, "commit")


@pytest.mark.parametrize("line", ["cand", "commit", "cancel"])
def test_what_needs_a_transaction_says_so(desk: Any, line: str) -> None:
    with pytest.raises(UsageError, match="`begin` opens one"):
        type_(desk, line)


def test_one_transaction_at_a_time(desk: Any) -> None:
    type_(desk, "begin")
    with pytest.raises(UsageError, match="open already"):
        type_(desk, "begin")


def test_several_transactions(desk: Any) -> None:
    type_(desk, "begin one", "put a.b 1", "begin two", "put c.d 2")
    listed = type_(desk, "transactions").split("\n")
    assert [line.split()[:2] for line in listed[1:]] == [["one", "tx0"], ["*", "two"]]
    with pytest.raises(UsageError, match="`use one` goes on with it"):
        type_(desk, "begin one")
    with pytest.raises(UsageError, match="is no name"):
        type_(desk, "begin a.b")
    with pytest.raises(UsageError, match="open: one, two"):
        type_(desk, "use three")
    type_(desk, "use one", "commit")
    assert desk.client.tree == {"a": {"b": 1}}
    with pytest.raises(UsageError, match="`use NAME` goes on with two"):
        type_(desk, "commit")
    type_(desk, "use two", "use", "put e.f 3")
    assert desk.client.tree == {"a": {"b": 1}, "e": {"f": 3}}
    assert "+ c.d: 2" in type_(desk, "use two", "cand --leaves")
    two = desk.session.transaction
    desk.session.end()
    assert two.ended
    assert json.loads(type_(desk, "transactions --json")) == []


def test_check_tells_what_is_in_the_way(desk: Any) -> None:
    type_(desk, "begin", "put a.b 1")
    assert type_(desk, "check") == "it would commit"
    desk.client.problems = [Collision("a is at 3,\nnot 2", path="a", expected=2, actual=3)]
    assert type_(desk, "check") == "Collision: a is at 3, not 2"
    told = json.loads(type_(desk, "check --json"))
    assert told == [
        {"error": "Collision", "message": "a is at 3,\nnot 2", "path": "a", "expected": 2, "actual": 3}
    ]


def test_a_message_of_one_write_is_not_lost_silently(desk: Any) -> None:
    type_(desk, "begin", "put a.b 1 -m why")
    assert "`commit --message` says why" in desk.notes[0]


def test_a_refused_commit_ends_the_transaction(desk: Any) -> None:
    type_(desk, "begin", "put a.b 1")
    desk.client.fail = Collision("a is not at version 0")
    with pytest.raises(Collision):
        type_(desk, "commit")
    assert desk.session.transaction is None


def test_a_commit_without_an_answer_leaves_the_transaction_to_the_user(desk: Any) -> None:
    type_(desk, "begin", "put a.b 1")
    desk.client.fail = Timeout("no answer")
    with pytest.raises(Timeout):
        type_(desk, "commit")
    assert desk.session.transaction is not None


def test_an_expired_transaction_is_forgotten(desk: Any) -> None:
    type_(desk, "begin")
    desk.session.transaction.expired = True
    with pytest.raises(TransactionExpired) as caught:
        type_(desk, "put a.b 1")
    desk.session.failed(caught.value)
    assert desk.session.transaction is None


def test_the_end_cancels_what_is_open(desk: Any) -> None:
    type_(desk, "begin")
    transaction = desk.session.transaction
    desk.session.end()
    assert transaction.ended


# -- history ---------------------------------------------------------------------------------------


def test_log(desk: Any) -> None:
    type_(desk, "put a.b 1 -m first", "put a.b 2 -m second", "put z.y 1 -m third")
    lines = type_(desk, "log a").split("\n")
    assert lines[0].startswith("a@1  20")
    assert lines[0].endswith("noc-1  second")
    assert lines[1] == "    + a.b: 2"
    assert type_(desk, "log a -n 1").count("@") == 1
    assert type_(desk, "log").count("@") == 3
    assert [each["message"] for each in json.loads(type_(desk, "log a --json"))] == ["second", "first"]
    with pytest.raises(NotFound):
        type_(desk, "log nope")


def test_a_log_with_a_gap_says_so(desk: Any) -> None:
    type_(desk, "put a.b 1", "put a.b 2")
    shown = type_(desk, "log a")
    desk.client.gaps = (Gap(3, 3, "gone"), Gap(0, 1, "history/a is damaged"))
    assert type_(desk, "log a") == shown
    assert desk.notes == [
        "a: the commit to version 3 cannot be read: gone",
        "a: the commits to versions 0 to 1 cannot be read: history/a is damaged",
    ]


def test_log_of_many_changes_is_cut(desk: Any) -> None:
    type_(desk, "put a {" + ", ".join(f"k{n}: {n}" for n in range(30)) + "}")
    assert type_(desk, "log a").endswith("    and 20 more")


def test_log_says_what_was_left_out(desk: Any) -> None:
    type_(desk, "put a.b 1")
    desk.client.entries["a"][0] = desk.client.entries["a"][0]._replace(left_out=1)
    assert type_(desk, "log a").endswith(
        "\n    + a.b: 1\n    1 change left out: too many or too large for a list"
    )
    assert json.loads(type_(desk, "log a --json"))[0]["left_out"] == 1


def test_log_shows_no_control_characters(desk: Any) -> None:
    type_(desk, 'put a.x "\\e[31m\\x9b1m\\n"', "put a.b 1")
    desk.client.entries["a"][0] = desk.client.entries["a"][0]._replace(
        message="\x1b]0;x\x07\nfake@1", tega_id="\x9b"
    )
    shown = type_(desk, "log a")
    assert not any((ord(char) < 32 and char != "\n") or 127 <= ord(char) < 160 for char in shown)
    assert "\nfake" not in shown


def test_diff(desk: Any) -> None:
    type_(desk, "put a {b: 1, c: 2}", "put a {b: 3, d: {e: 4}}")
    assert type_(desk, "diff a@0 a@1").split("\n") == ["- b: 1", "+ b: 3", "- c: 2", "+ d:", "+   e: 4"]
    leaves = type_(desk, "diff a@0 a@1 --leaves").split("\n")
    assert sorted(leaves) == ["+ b: 3", "+ d.e: 4", "- b: 1", "- c: 2"]
    assert type_(desk, "diff a@0 --stat").endswith("\n1 leaf added, 1 removed, 1 changed")
    assert json.loads(type_(desk, "diff a@0 --stat --json")) == {"added": 1, "removed": 1, "changed": 1}
    assert json.loads(type_(desk, "diff a@0 a@1 --patch")) == [
        {"op": "replace", "path": "/b", "value": 3},
        {"op": "remove", "path": "/c"},
        {"op": "add", "path": "/d", "value": {"e": 4}},
    ]
    with pytest.raises(UsageError, match="give one of them"):
        type_(desk, "diff a@0 --stat --patch")
    assert type_(desk, "diff a@0") == type_(desk, "diff a@0 a@1")
    assert type_(desk, "diff a@1") == "no difference"
    assert type_(desk, "diff a.b a.d.e") == "- 3\n+ 4"
    for line in ("diff a", "diff a@0 a@0"):
        with pytest.raises(UsageError, match=r"compared with itself; .* as in diff a@-1$"):
            type_(desk, line)


def test_rollback(desk: Any) -> None:
    type_(desk, "put a.b 1", "put a.b 2")
    assert type_(desk, "rollback a 0 -m back") == "a@2"
    assert desk.client.entries["a"][0].message == "back"
    type_(desk, "put a.b 9")
    type_(desk, "rollback a -2")
    with pytest.raises(UsageError, match="whole root"):
        type_(desk, "rollback a.b 0")
    with pytest.raises(UsageError, match="is no version"):
        type_(desk, "rollback a 1x")


def test_a_dry_run_shows_and_does_nothing(desk: Any) -> None:
    type_(desk, "put a.b 1", "put a.b 2")
    assert type_(desk, "rollback a 0 --dry-run") == "- b: 2\n+ b: 1"
    assert type_(desk, "undo a --dry-run") == "- b: 2\n+ b: 1"
    assert type_(desk, "rollback a 1 --dry-run") == "nothing would change"
    assert desk.client.tree == {"a": {"b": 2}}
    type_(desk, "del a")
    assert type_(desk, "rollback a 0 --dry-run") == "+ b: 1"
    assert desk.client.tree == {}


def test_undo_and_undo_of_it(desk: Any) -> None:
    type_(desk, "put a.b 1", "put a.b 2", "undo a")
    assert desk.client.tree == {"a": {"b": 1}}
    assert desk.client.entries["a"][0].message == "undo of a@1"
    type_(desk, "undo a -m again")
    assert desk.client.tree == {"a": {"b": 2}}
    assert desk.client.entries["a"][0].message == "again"
    type_(desk, "begin", "undo a", "commit -m both")
    assert desk.client.entries["a"][0].message == "both"


def test_the_log_of_all_roots_has_the_deleted_ones(desk: Any) -> None:
    type_(desk, "put a.b 1", "put c.d 1", "del a -m 'not needed'")
    shown = json.loads(type_(desk, "log --json"))
    assert sorted((each["root"], each["version"]) for each in shown) == [("a", 0), ("a", 1), ("c", 0)]
    assert "not needed" in type_(desk, "log")


def test_undo_of_a_deletion_and_of_a_first_commit(desk: Any) -> None:
    type_(desk, "put a.b 1", "del a")
    assert type_(desk, "undo a --dry-run") == "+ b: 1"
    assert type_(desk, "undo a") == "a@2"
    assert desk.client.tree == {"a": {"b": 1}}
    assert desk.client.entries["a"][0].message == "undo of a@1"
    for at, tree in ((3, {}), (4, {"a": {"b": 1}})):
        assert type_(desk, "undo a") == f"a@{at}"
        assert desk.client.tree == tree
    type_(desk, "put new.a 1")
    assert type_(desk, "undo new --dry-run") == "- a: 1"
    assert type_(desk, "undo new") == "new@1"
    assert "new" not in desk.client.tree
    assert desk.client.entries["new"][0].message == "undo of new@0"
    assert type_(desk, "undo new") == "new@2"
    type_(desk, "put other.a 1", "begin", "undo other", "commit")
    assert "other" not in desk.client.tree
    with pytest.raises(NotFound, match="no root never"):
        type_(desk, "undo never")
    with pytest.raises(UsageError, match="whole root"):
        type_(desk, "undo a.b")


def test_undo_of_a_root_that_is_not_here(desk: Any) -> None:
    type_(desk, "put a.b 1", "put a.b 2")
    desk.client.listings["old"] = []
    type_(desk, "undo a")
    assert desk.client.entries["a"][0].message == "undo of a@1"
    desk.client.entries["a"].clear()
    type_(desk, "undo a")
    assert desk.client.entries["a"][0].message == "undo of a"


def test_a_dry_run_of_an_absent_root(desk: Any) -> None:
    type_(desk, "put a.b 1", "del a")
    assert type_(desk, "rollback a 1 --dry-run") == "nothing would change"
    assert type_(desk, "rollback a 1") == "nothing changed"
    for line in ("rollback a 7 --dry-run", "rollback never 0 --dry-run"):
        with pytest.raises(NotFound, match="has no version"):
            type_(desk, line)
    desk.client.problems = [NotFound("the owner says no")]
    with pytest.raises(NotFound, match="owner says no"):
        type_(desk, "rollback a 1 --dry-run")


def test_a_dry_run_in_a_transaction_begins_at_the_candidate(desk: Any) -> None:
    type_(desk, "put a {b: 1, c: {d: 1}}", "put a.b 2", "put r.s 1", "begin", "put a.b 3", "del a.c.d")
    assert type_(desk, "rollback a 0 --dry-run") == "- b: 3\n+ b: 1\n  c:\n+   d: 1"
    assert type_(desk, "rollback a 1 --dry-run --leaves") == "- b: 3\n+ b: 2\n+ c.d: 1"
    assert type_(desk, "undo r --dry-run") == "- s: 1", "what it does not touch is as it is"
    type_(desk, "del a")
    assert type_(desk, "rollback a 0 --dry-run") == "+ b: 1\n+ c:\n+   d: 1"
    type_(desk, "rollback a 1")
    assert type_(desk, "rollback a 1 --dry-run") == "nothing would change"


def test_log_by_whom_and_since(desk: Any) -> None:
    type_(desk, "put a.b 1", "log a --since 2023-11-14T22:13:20Z --by noc-1 -n 5")
    assert ("log", "a", 5, 1_700_000_000.0, "noc-1") in desk.client.calls
    with pytest.raises(UsageError, match="how long ago"):
        type_(desk, "log a --since yesterday")


def test_tags(desk: Any) -> None:
    assert type_(desk, "tags") == "no tags"
    type_(desk, "put a.b 1", "put a.b 2", "put c.d 1")
    assert type_(desk, "tag a@0 first") == "a@0 is first"
    assert type_(desk, "tag a now", "tag c now") == "c@0 is now"
    assert type_(desk, "tags").split("\n")[1:] == ["a     first  0", "a     now    1", "c     now    0"]
    assert json.loads(type_(desk, "tags c --json")) == [{"root": "c", "tag": "now", "version": 0}]
    assert type_(desk, "untag a first") == "a@0 is first no more"
    for line in ("tag a.b x", "untag a.b x", "tags a.b"):
        with pytest.raises(UsageError, match="whole root"):
            type_(desk, line)
    with pytest.raises(NotFound):
        type_(desk, "untag a first")
    desk.client.listings["old"] = [{"root": "a", "owner": "gateway"}, {"root": "ops-q", "owner": "q"}]
    desk.client.named.clear()
    assert type_(desk, "tags a") == "no tags"
    assert type_(desk, "tags ops-q") == "no tags are known here: ops-q belongs to q, where its tags are"
    assert json.loads(type_(desk, "tags ops-q --json")) == []
    with pytest.raises(NotFound, match="no root nope"):
        type_(desk, "tags nope")


def test_blame(desk: Any) -> None:
    assert type_(desk, "blame a") == "no leaves"
    desk.client.blamed = [
        Blamed("a.b", 3, 1_700_000_000.0, "noc-1", "x" * 100 + "\x1b[31m"),
        Blamed("a.c", 0, None, "", ""),
    ]
    shown = type_(desk, "blame a@golden").split("\n")
    assert shown[1].split()[:2] == ["a.b", "3"]
    assert shown[1].endswith("noc-1  " + "x" * 59 + "…")
    assert shown[2].split() == ["a.c", "0", "-", "-"]
    assert desk.client.calls[-1] == ("blame", ("a",), "golden")
    assert json.loads(type_(desk, "blame a --json"))[0]["message"] == "x" * 100 + "\x1b[31m"


def test_edges(desk: Any) -> None:
    assert type_(desk, "edges a@golden") == "a@1 -> a.b@0"
    assert desk.client.calls[-1] == ("edges", ("a",), "golden")
    assert json.loads(type_(desk, "edges a --json")) == [{"parent": "a@1", "oid": "b", "child": "a.b@0"}]


def test_sync_waits_for_those_who_are_behind(desk: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def agent(name: str, state: str, behind: int | None) -> dict[str, Any]:
        return {"tega_id": name, "state": state, "config": [{"root": "c", "version": 1, "behind": behind}]}

    told: list[str] = []
    desk.session.around = desk.session.around._replace(progress=told.append)
    left = [3, None, 0]
    desk.client.listings["agents"] = [agent("pi1", "connected", 9), agent("pi2", "away", 9)]

    def pause(_: float) -> None:
        desk.client.listings["agents"][0] = agent("pi1", "connected", left.pop(0))

    monkeypatch.setattr("tega_zmq.shell.commands.fleet.time.sleep", pause)
    assert type_(desk, "sync --wait") == "1 connected agent, none behind"
    assert told == ["sync: 1 of 1 connected agent behind: pi1"] * 3 + [""]
    assert "reconciled" not in type_(desk, "sync --wait --json")


def test_roots_and_old(desk: Any) -> None:
    assert type_(desk, "roots") == "no roots"
    assert type_(desk, "old") == "no versions"
    desk.client.listings["roots"] = [
        {"root": "ops-pi1", "version": 7, "owner": "pi1", "epoch": "e", "oldest": 1, "age": 3.25}
    ]
    assert type_(desk, "roots").split("\n")[1].split() == ["ops-pi1", "7", "pi1", "3.2", "s", "ago"]
    desk.client.listings["old"] = [
        {"root": "a", "deleted": True, "versions": [8, 9], "updates": [], "readable": [[0, 3], [5, 9]]},
        {
            "root": "b",
            "deleted": False,
            "versions": [0, 1],
            "updates": [0, 1],
            "readable": [[0, 1]],
        },
    ]
    assert [line.split() for line in type_(desk, "old").split("\n")[1:]] == [
        ["a", "0..3,", "5..9", "8..9", "deleted"],
        ["b", "0..1", "0..1"],
    ]


def test_a_root_is_shown_as_it_is_typed(desk: Any) -> None:
    type_(desk, 'put "weird.root x".a 1')
    desk.client.named = {"weird.root x": {"z": 0}}
    for line in ("roots", "old", "tags"):
        assert '"weird.root x"' in type_(desk, line).split("\n")[1], line
    assert type_(desk, "log").startswith('"weird.root x"@0  ')
    agent: dict[str, Any] = {"tega_id": "q", "state": "away", "heard": None, "config": [], "sessions": []}
    desk.client.listings["agents"] = [{**agent, "operational": [{"root": "ops.q", "version": 3}]}]
    assert '"ops.q"@3' in type_(desk, "agents")
    assert json.loads(type_(desk, "roots --json"))[0]["root"] == "weird.root x"


def test_differences_are_shown_in_order_of_path(desk: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    type_(desk, "put a {b: 1, c: 1, d: {e: 1}}", "begin", "put a {b: 2, c: 2, d: {e: 2}}")
    found = [Difference(f"a.{oid}", 1, 2, False, False) for oid in ("d.e", "b", "c")]
    monkeypatch.setattr("tests.unit.shell.conftest.differences", lambda *_: found)
    for line in ("cand --json", "cand --leaves --json", "diff a@0 --json"):
        shown = json.loads(type_(desk, line))
        changes = shown["changes"] if isinstance(shown, dict) else shown
        assert [each["path"] for each in changes] == ["a.b", "a.c", "a.d.e"], line
    assert type_(desk, "cand").endswith("- a.b: 1\n+ a.b: 2\n- a.c: 1\n+ a.c: 2\n- a.d.e: 1\n+ a.d.e: 2")
