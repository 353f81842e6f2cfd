"""REST, data: what interface.md says of GET, PUT, PATCH and DELETE, against a real broker."""

from __future__ import annotations

import gzip
import http.client
import json
import logging
import zlib
from typing import Any

import pytest

from tega_broker.bridge.answers import dump, dump_sorted
from tests.bridgekit import Answer, Site, url_of


def put(bridge: Site, path: str, value: Any) -> Answer:
    answer = bridge.ask("PUT", path, value)
    assert answer.status == 200, answer
    return answer


# -- values ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        False,
        0,
        -1,
        2**64 - 1,
        -(2**63),
        1.5,
        -0.0,
        1e300,
        "",
        "ä\u2028\U0001f600\x00",
        [],
        [1, [None, {}]],
        {},
        {"a": {"b": {}}},
        {"eth0.100": {"mtu": 1500}, "ü b/c%": [1]},
    ],
)
def test_what_is_put_can_be_got(bridge: Site, root: str, value: Any) -> None:
    assert put(bridge, f"/{root}/x/", value).json == {"revision": put_revision(bridge), "versions": {root: 0}}
    got = bridge.ask("GET", f"/{root}/x")
    assert got.status == 200
    assert json.dumps(got.json, sort_keys=True) == json.dumps(value, sort_keys=True)
    assert got.headers["content-type"] == "application/json"


def put_revision(bridge: Site) -> Any:
    """The revision of the last commit, as the broker knows it."""
    client = bridge.client()
    try:
        return client.inspect("status")["revision"]
    finally:
        client.close()


def test_a_path_is_percent_encoded_and_a_dot_parts_nothing(bridge: Site, root: str) -> None:
    path = url_of(root, "eth0.100", "a/b", "ü %", "?&=#")
    put(bridge, path, 1)
    assert bridge.ask("GET", path).json == 1
    assert bridge.ask("GET", path.removesuffix("/")).json == 1
    assert bridge.ask("GET", f"/{root}/").json == {"eth0.100": {"a/b": {"ü %": {"?&=#": 1}}}}


@pytest.mark.parametrize(
    "path", ["/", "//", "/a//b", "//a", "/a/_b", "/a/%ff/", "/" + "/".join("a" * 70), f"/a/{'x' * 300}"]
)
def test_a_path_that_is_none_is_bad_input(bridge: Site, path: str) -> None:
    for method in ("GET", "PUT", "DELETE", "PATCH"):
        answer = bridge.ask(method, path, 1)
        assert (answer.status, answer.json["message"] != "") == (400, True), (method, answer)


def test_nothing_there_is_404(bridge: Site, root: str) -> None:
    answer = bridge.ask("GET", f"/{root}/a.b/c")
    assert (answer.status, answer.json["error"], answer.json["path"]) == (404, "NotFound", f'{root}."a.b".c')
    assert bridge.ask("DELETE", f"/{root}/a").status == 404
    assert bridge.ask("GET", "/_nothing").error == "NotFound"


def test_patch_merges_and_delete_deletes(bridge: Site, root: str) -> None:
    put(bridge, f"/{root}", {"a": 1, "b": {"c": 2, "d": 3}})
    assert bridge.ask("PATCH", f"/{root}/", {"b": {"c": None}, "e": [1]}).json["versions"] == {root: 1}
    assert bridge.ask("GET", f"/{root}").json == {"a": 1, "b": {"d": 3}, "e": [1]}
    assert bridge.ask("DELETE", f"/{root}/b").json["versions"] == {root: 2}
    assert bridge.ask("GET", f"/{root}/b").status == 404


# -- versions --------------------------------------------------------------------------------------


def test_versions_can_be_read_and_expected(bridge: Site, root: str) -> None:
    put(bridge, f"/{root}/a", 0)
    put(bridge, f"/{root}/a", 1)
    assert bridge.ask("GET", f"/{root}/a?version=0").json == 0
    assert bridge.ask("GET", f"/{root}/a?version=-1").json == 0
    assert bridge.ask("GET", f"/{root}/a?version=1").json == 1
    assert bridge.ask("GET", f"/{root}/a?version=7").status == 404
    for method, target in (
        ("PUT", f"/{root}/a?version=0"),
        ("PUT", f"/{root}/a?version=absent"),
        ("DELETE", f"/{root}/a?version=0"),
        ("PATCH", f"/{root}/a?version=0"),
        ("PUT", f"/{root}/new?version=1"),
    ):
        answer = bridge.ask(method, target, 5)
        assert (answer.status, answer.error) == (409, "Collision"), target
        assert {"expected", "actual", "path", "message"} <= answer.json.keys()
    assert bridge.ask("PUT", f"/{root}/a?version=1", 2).status == 200
    assert bridge.ask("PUT", f"/{root}/b?version=absent", 2).status == 200
    for method, version in (("PUT", "x"), ("PUT", "-1"), ("DELETE", "1.5"), ("PATCH", "9" * 40)):
        assert bridge.ask(method, f"/{root}/a?version={version}", 5).status == 400


def test_an_etag_saves_the_body_and_guards_a_write(bridge: Site, root: str) -> None:
    put(bridge, f"/{root}/a", {"x": 1})
    tag = bridge.ask("GET", f"/{root}/a").headers["etag"]
    for header in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        again = bridge.ask("GET", f"/{root}/a", headers={"If-None-Match": header})
        assert (again.status, again.body, again.headers["etag"]) == (304, b"", tag)
    assert bridge.ask("GET", f"/{root}/a", headers={"If-None-Match": '"other"'}).status == 200
    put(bridge, f"/{root}/b", 1)
    assert bridge.ask("GET", f"/{root}/a").headers["etag"] == tag, "another node's change is none of this one"
    assert bridge.ask("PUT", f"/{root}/a", {"x": 2}, headers={"If-Match": tag}).status == 200
    stale = bridge.ask("PUT", f"/{root}/a", {"x": 3}, headers={"If-Match": tag})
    assert (stale.status, stale.error) == (409, "Collision")
    assert bridge.ask("GET", f"/{root}/a").json == {"x": 2}
    assert bridge.ask("DELETE", f"/{root}/a", headers={"If-Match": '"0"'}).status == 409
    assert bridge.ask("PUT", f"/{root}/none", 1, headers={"If-Match": "*"}).status == 409
    assert bridge.ask("PUT", f"/{root}/a", 1, headers={"If-Match": "*"}).status == 200
    assert bridge.ask("PUT", f"/{root}/a", 2, headers={"If-None-Match": "*"}).status == 409
    assert bridge.ask("PUT", f"/{root}/n", 2, headers={"If-None-Match": "*"}).status == 200
    assert bridge.ask("PUT", f"/{root}/n", 3, headers={"If-None-Match": '"1"'}).status == 400
    assert bridge.ask("PUT", f"/{root}/n", 3, headers={"If-Match": "nonsense"}).status == 400


def test_the_etag_stands_for_the_handlers_too(bridge: Site, root: str) -> None:
    put(bridge, f"/{root}", {"x": 1})
    bare = bridge.ask("GET", f"/{root}").headers["etag"]
    one, other = bridge.client(f"{root}-1"), bridge.client(f"{root}-2")
    one.register(f"{root}.add", lambda: 1)
    one.register(f"{root}x.add", lambda: 1)
    shown = bridge.ask("GET", f"/{root}", headers={"If-None-Match": bare})
    assert (shown.status, shown.json) == (200, {"x": 1, "add": f"%{root}-1.add"})
    tag = shown.headers["etag"]
    assert bridge.ask("HEAD", f"/{root}").headers["etag"] == tag
    assert bridge.ask("GET", f"/{root}", headers={"If-None-Match": tag}).status == 304
    alone = bridge.ask("GET", f"/{root}x")
    assert (alone.json, "x-tega-version" in alone.headers) == ({"add": f"%{root}-1.add"}, False)
    assert bridge.ask("PUT", f"/{root}x", 1, headers={"If-Match": alone.headers["etag"]}).status == 409
    assert bridge.ask("PUT", f"/{root}x", 1, headers={"If-Match": "*"}).status == 409
    other.register(f"{root}.add", lambda: 1)
    assert bridge.ask("GET", f"/{root}", headers={"If-None-Match": tag}).status == 200
    assert bridge.ask("PUT", f"/{root}/x", 2, headers={"If-Match": "*"}).status == 200
    assert bridge.ask("PUT", f"/{root}", {"x": 3}, headers={"If-Match": tag}).status == 409
    tag = bridge.ask("GET", f"/{root}").headers["etag"]
    assert bridge.ask("PUT", f"/{root}", {"x": 3}, headers={"If-Match": tag}).status == 200


def test_guards_that_do_not_agree_are_a_collision(bridge: Site, root: str) -> None:
    put(bridge, f"/{root}/x", 1)
    tag = bridge.ask("GET", f"/{root}/x").headers["etag"]
    for query, headers in (
        ("?version=0", {"If-Match": '"zzz-7"'}),
        ("?version=1", {"If-Match": tag}),
        ("?version=absent", {"If-Match": tag}),
        ("?version=7", {"If-None-Match": "*"}),
        ("", {"If-None-Match": "*", "If-Match": tag}),
    ):
        answer = bridge.ask("PUT", f"/{root}/x{query}", 2, headers=headers)
        assert (answer.status, answer.error) == (409, "Collision"), (query, headers)
    assert bridge.ask("PUT", f"/{root}/x?version=0", 2, headers={"If-Match": tag}).status == 200
    assert bridge.ask("PUT", f"/{root}/y?version=absent", 2, headers={"If-None-Match": "*"}).status == 200


def test_a_message_may_come_with_any_part_of_a_transaction(bridge: Site, root: str) -> None:
    for number, (begin, write, commit, made) in enumerate(
        [("", "write", "", "write"), ("begin", "write", "", "begin"), ("", "write", "commit", "commit")]
    ):
        txid = bridge.ask("POST", f"/_begin?message={begin}").json["txid"]
        for method in ("PUT", "PATCH"):
            assert bridge.ask(method, f"/{root}?txid={txid}&message={write}", {"x": number}).status == 200
        more = f"&message={commit}" if commit else ""
        assert bridge.ask("POST", f"/_commit?txid={txid}{more}").status == 200
        assert bridge.client().log(root, 1)[0].message == made


def test_a_patch_makes_nothing_ephemeral(bridge: Site, root: str) -> None:
    answer = bridge.ask("PATCH", f"/{root}?ephemeral=True&tega_id=nobody", {"x": 1})
    assert answer.status == 400
    assert bridge.ask("GET", f"/{root}").status == 404


def test_internal_shows_attributes(bridge: Site, root: str) -> None:
    put(bridge, f"/{root}", {"a": 1})
    for flag in ("True", "true", "1"):
        shown = bridge.ask("GET", f"/{root}/?internal={flag}").json
        assert (shown["_oid"], shown["_version"], shown["_ephemeral"]) == (root, 0, False)
        assert shown["_value"]["a"]["_value"] == 1
    assert bridge.ask("GET", f"/{root}/?internal=False").json == {"a": 1}
    assert bridge.ask("GET", f"/{root}/?internal=perhaps").status == 400


def test_a_regex_matches_oid_by_oid_with_its_groups(bridge: Site, root: str) -> None:
    put(bridge, f"/{root}", {"pi1": {"net": {"mtu": 1}}, "pi2": {"net": {"mtu": 2}}, "x": {"net": {}}})
    want = {
        f"{root}.pi1.net": {"groups": [["1"]], "instance": {"mtu": 1}},
        f"{root}.pi2.net": {"groups": [["2"]], "instance": {"mtu": 2}},
    }
    # As a client of today writes it, and as the first tega's driver does, which makes a slash of each dot.
    for path in (rf"/{root}%5C.pi(%5Cd)%5C.net/", rf"/{root}\/pi(\d)\/net/"):
        assert bridge.ask("GET", f"{path}?regex_flag=True").json == want
    assert bridge.ask("GET", "/(/?regex_flag=True").status == 400
    assert bridge.ask("GET", "/nothing-like-it/?regex_flag=True").json == {}


# -- HTTP ------------------------------------------------------------------------------------------


def test_head_is_get_without_a_body(bridge: Site, root: str) -> None:
    put(bridge, f"/{root}/a", "x" * 100)
    head, get = bridge.ask("HEAD", f"/{root}/a"), bridge.ask("GET", f"/{root}/a")
    assert (head.status, head.body) == (200, b"")
    for name in ("etag", "content-length", "content-type"):
        assert head.headers[name] == get.headers[name]
    assert bridge.ask("HEAD", f"/{root}/b").status == 404
    assert bridge.ask("HEAD", "/_roots").status == 200


def test_head_never_acts(bridge: Site) -> None:
    acting = sorted({route.path for route in bridge.serving.bridge.table if route.acts})
    assert {"/_begin", "/_clear", "/_commit", "/_rollback"} <= set(acting)
    for path in [*acting, "/_begin/", "/_pubsub", "/_tunnel"]:
        answer = bridge.ask("HEAD", f"{path}?root_oid=a&backto=-1&txid=x")
        assert answer.status == 405, path
        assert "HEAD" not in answer.headers["allow"]
        assert "HEAD" not in bridge.ask("OPTIONS", path).headers["allow"]
    assert len(bridge.serving.bridge.transactions) == 0


def test_an_empty_txid_is_no_txid(bridge: Site, root: str) -> None:
    for method in ("PUT", "PATCH", "DELETE"):
        assert bridge.ask(method, f"/{root}/a?txid=", {"b": 1}).status == 400
    assert bridge.ask("GET", f"/{root}/").status == 404


def test_if_match_takes_any_of_a_list(bridge: Site, root: str) -> None:
    for number in range(3):
        put(bridge, f"/{root}/a", number)
    tag = bridge.ask("GET", f"/{root}/a").headers["etag"]

    def guarded(header: str) -> int:
        """The version that was made, or the negative status."""
        answer = bridge.ask("PUT", f"/{root}/a", header, headers={"If-Match": header})
        return int(answer.json["versions"][root]) if answer.status == 200 else -answer.status

    assert guarded(f'"0", {tag}') == 3
    assert guarded('"0", "1", "3"') == 4
    assert guarded('"4"') == 5
    assert guarded('"x", W/"5"') == 6
    for header in (
        '"0", "1"',
        '"06"',
        '"6000000000000000000000000"',
        '"' + "9" * 400 + '"',
        '"\u00b2"',
        '"x"',
    ):
        assert guarded(header) == (-400 if not header.isascii() else -409), header
    answer = bridge.ask("PUT", f"/{root}/none", 1, headers={"If-Match": '"0", "1"'})
    assert (answer.status, answer.json["actual"]) == (409, "absent")


@pytest.mark.parametrize("name", ["If-Match", "If-None-Match"])
def test_a_tag_that_is_not_ascii_is_bad_input(bridge: Site, root: str, name: str) -> None:
    put(bridge, f"/{root}/a", 1)
    for method in ("PUT", "GET"):
        if (name, method) == ("If-Match", "GET"):
            continue
        with bridge.socket() as peer:
            peer.sendall(
                f"{method} /{root}/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n{name}: ".encode()
                + b'"\xff"\r\nConnection: close\r\n\r\n2'
            )
            assert peer.makefile("rb").read().startswith(b"HTTP/1.1 400 ")


def test_half_a_pair_of_surrogates_can_be_told() -> None:
    assert dump({"a": "\udcff"}) == b'{"a":"\\udcff"}'
    assert dump_sorted(["\ud800", "\U0001f600"]) == b'["\\ud800","\xf0\x9f\x98\x80"]'


@pytest.mark.parametrize("more", ["version=0", "version=-1", "internal=True"])
def test_a_regex_finds_in_the_present_only(bridge: Site, root: str, more: str) -> None:
    put(bridge, f"/{root}/a", 1)
    assert bridge.ask("GET", f"/{root}.*?regex_flag=True&{more}").status == 400
    assert bridge.ask("GET", f"/{root}.*?regex_flag=True&internal=False").status == 200


def test_what_is_no_http_is_answered_and_logged_as_all_else(
    bridge: Site, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "tega.access")
    with bridge.socket() as peer:
        peer.sendall(b"nonsense\r\n\r\n")
        said = peer.makefile("rb").read().decode()
    assert said.startswith("HTTP/1.0 400 ")
    assert "\r\nServer: tega-bridge\r\n" in said
    id = said.partition("\r\nX-Request-Id: ")[2].partition("\r\n")[0]
    (line,) = [record.fields for record in caplog.records if record.name == "tega.access"]  # type: ignore[attr-defined]
    assert line.items() >= {"status": 400, "id": id, "from": "127.0.0.1"}.items()


def test_options_and_methods_that_are_not_there(bridge: Site) -> None:
    answer = bridge.ask("OPTIONS", "/a/b")
    assert (answer.status, answer.headers["allow"]) == (204, "GET, HEAD, PUT, PATCH, DELETE, OPTIONS")
    assert bridge.ask("OPTIONS", "/_roots").headers["allow"] == "GET, HEAD, OPTIONS"
    for method, path in (("POST", "/a/b"), ("PUT", "/_roots"), ("TRACE", "/a")):
        answer = bridge.ask(method, path)
        assert (answer.status, "GET" in answer.headers["allow"]) == (405, True)


def test_a_large_answer_is_packed_if_that_is_wanted(bridge: Site, root: str) -> None:
    value = {f"key{n}": "value" * 5 for n in range(5000)}
    put(bridge, f"/{root}", value)
    plain = bridge.ask("GET", f"/{root}")
    assert "content-encoding" not in plain.headers and plain.json == value
    assert plain.headers["vary"] == "Accept-Encoding"
    packed = bridge.ask("GET", f"/{root}", headers={"Accept-Encoding": "br, gzip;q=0.5"})
    assert packed.headers["content-encoding"] == "gzip"
    assert len(packed.body) < len(plain.body) / 10
    assert json.loads(gzip.decompress(packed.body)) == value
    tag = packed.headers["etag"]
    assert bridge.ask("GET", f"/{root}", headers={"If-None-Match": tag}).status == 304
    for refused in ("gzip;q=0", "identity", "*;q=0"):
        answer = bridge.ask("GET", f"/{root}", headers={"Accept-Encoding": refused})
        assert "content-encoding" not in answer.headers


def test_a_body_may_come_packed_and_in_chunks(bridge: Site, root: str) -> None:
    body = json.dumps({"a": [1] * 1000}).encode()
    packed = {"gzip": gzip.compress(body), "deflate": zlib.compress(body)}
    for name, data in packed.items():
        answer = bridge.ask("PUT", f"/{root}/{name}", body=data, headers={"Content-Encoding": name})
        assert answer.status == 200
        assert bridge.ask("GET", f"/{root}/{name}").json == {"a": [1] * 1000}
        cut = bridge.ask("PUT", f"/{root}/{name}", body=data[:-9], headers={"Content-Encoding": name})
        assert cut.status == 400
    assert bridge.ask("PUT", f"/{root}/x", body=b"1", headers={"Content-Encoding": "gzip"}).status == 400
    assert bridge.ask("PUT", f"/{root}/x", body=b"1", headers={"Content-Encoding": "br"}).status == 415
    connection = bridge.connection()
    connection.request("PUT", f"/{root}/chunked", iter([b'{"a"', b": 1", b"}"]), encode_chunked=True)
    assert connection.getresponse().read()
    connection.close()
    assert bridge.ask("GET", f"/{root}/chunked").json == {"a": 1}


def test_a_client_that_waits_for_100_is_told_to_go_on(bridge: Site, root: str) -> None:
    with bridge.socket() as peer:
        head = (
            f"PUT /{root}/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n"
        )
        peer.sendall(head.encode())
        assert peer.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        peer.sendall(b"17")
        assert peer.recv(1000).startswith(b"HTTP/1.1 200 OK")
    assert bridge.ask("GET", f"/{root}/a").json == 17


def test_a_request_has_an_id_of_its_own_or_the_one_it_brought(bridge: Site) -> None:
    assert bridge.ask("GET", "/_roots").headers["server"] == "tega-bridge"
    first, second = (bridge.ask("GET", "/_roots").headers["x-request-id"] for _ in range(2))
    assert first != second
    mine = {"X-Request-Id": "my-id/7"}
    assert bridge.ask("GET", "/_roots", headers=mine).headers["x-request-id"] == "my-id/7"
    assert bridge.ask("GET", "/_nix", headers=mine).headers["x-request-id"] == "my-id/7"
    bad = bridge.ask("GET", "/_roots", headers={"X-Request-Id": "x y"}).headers["x-request-id"]
    assert bad not in ("x y", first, second)


def test_requests_may_be_sent_before_the_answers_came(bridge: Site, root: str) -> None:
    ask = f"PUT /{root}/%d HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\n7"
    with bridge.socket() as peer:
        peer.sendall("".join(ask % n for n in range(20)).encode())
        got = b""
        while got.count(b"HTTP/1.1 200 OK") < 20:
            part = peer.recv(65536)
            assert part, got
            got += part
    assert len(bridge.ask("GET", f"/{root}").json) == 20


# -- strictness ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"  ", 400),
        (b"{", 400),
        (b"nul", 400),
        (b"1 2", 400),
        (b"{'a': 1}", 400),
        (b"[1,]", 400),
        (b"NaN", 400),
        (b"[Infinity]", 400),
        (b"-Infinity", 400),
        (b"\xff", 400),
        (b'"\xc3"', 400),
        (b"\xef\xbb\xbf1", 400),
        (b"01", 400),
        (b"1e999", 422),
        (b'{"a": 1, "a": 1}', 422),
        (b'[{"a": {"b": 1, "b": 2}}]', 422),
        (b"18446744073709551616", 422),
        (b"-9223372036854775809", 422),
        (b"9" * 5000, 422),
        (b'"\\ud800"', 422),
        (b'{"\\udc00": 1}', 422),
        (b'{"": 1}', 400),
        (b'{"_x": 1}', 400),
        (b"[" * 70 + b"]" * 70, 422),
        (b"[" * 100_000 + b"]" * 100_000, 422),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, 422),
    ],
)
def test_a_body_that_is_no_value_is_refused(bridge: Site, root: str, body: bytes, status: int) -> None:
    answer = bridge.ask("PUT", f"/{root}/a", body=body)
    assert (answer.status, bool(answer.json["message"])) == (status, True), answer
    assert bridge.ask("GET", f"/{root}").status == 404


def test_a_value_that_is_too_large_is_413(bridge: Site, root: str) -> None:
    answer = bridge.ask("PUT", f"/{root}/a", "x" * 1_100_000)
    assert (answer.status, answer.error) == (413, "TooLarge")
    assert {"size", "limit"} <= answer.json.keys()
    assert bridge.ask("PUT", f"/{root}/a?message={'m' * 1001}", 1).status == 400


@pytest.mark.parametrize(
    "target",
    [
        "/a?%ff=1",
        "/a?x=%ff",
        "/a?version=1.5",
        "/a?regex_flag=2",
        "/a?version=",
        "/a?internal=",
        "/a?" + "&".join("x=1" for _ in range(40)),
    ],
)
def test_a_query_that_is_none_is_bad_input(bridge: Site, target: str) -> None:
    answer = bridge.ask("GET", target)
    assert answer.status == 400, answer


def test_what_is_no_http_is_told_so_and_the_connection_ends(bridge: Site) -> None:
    for junk in (
        b"\x00\x01\x02\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\nA\r\n\r\n",
    ):
        with bridge.socket() as peer:
            peer.sendall(junk)
            got = b""
            while part := peer.recv(65536):
                got += part
        head, _, body = got.partition(b"\r\n\r\n")
        assert head.startswith((b"HTTP/1.0 400", b"HTTP/1.1 400")), got
        assert json.loads(body)["error"] == "InvalidValue"


def test_a_broken_body_ends_only_its_connection(bridge: Site, root: str) -> None:
    with bridge.socket() as peer:
        peer.sendall(
            f"PUT /{root}/a HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n".encode()
        )
        got = peer.recv(65536)
        assert b" 400 " in got.split(b"\r\n")[0]
    assert bridge.ask("GET", f"/{root}").status == 404


# -- who -------------------------------------------------------------------------------------------


def test_history_knows_in_whose_name_it_was(bridge: Site, root: str) -> None:
    bridge.ask("PUT", f"/{root}/a?tega_id=joe&message=why%20not", 1)
    bridge.ask("PUT", f"/{root}/a", 2)
    entries = bridge.ask("GET", f"/_log?path={root}").json
    assert [(e["tega_id"], e["message"]) for e in entries] == [("the-bridge", ""), ("joe", "why not")]
    for wrong in ("j%20oe", "", "x" * 65):
        assert bridge.ask("PUT", f"/{root}/a?tega_id={wrong}", 1).status == 400


def test_a_request_takes_nobodys_session_over(bridge: Site, root: str) -> None:
    client = bridge.client("ann")
    client.put("presence.ann", 1, ephemeral=True)
    states: list[str] = []
    client.on_state(states.append)
    assert bridge.ask("PUT", f"/{root}/a?tega_id=ann", 1).status == 200
    assert client.get(f"{root}.a") == 1
    assert (client.state, states) == ("connected", [])
    assert bridge.ask("GET", f"/_log?path={root}").json[0]["tega_id"] == "ann"
    kinds = sorted(each["kind"] for each in client.inspect("sessions") if each["tega_id"] == "ann")
    assert kinds == ["client", "delegate"]
    client.close()
    assert bridge.ask("PUT", f"/{root}/a?tega_id=ann", 2).status == 200
    assert bridge.ask("GET", "/presence").status == 404


def test_an_ephemeral_node_needs_a_session_of_ones_own(bridge: Site, root: str) -> None:
    answer = bridge.ask("PUT", f"/{root}/a?tega_id=ann&ephemeral=True", 1)
    assert (answer.status, answer.error) == (409, "Collision")
    assert "/_pubsub" in answer.json["message"]
    assert bridge.ask("PUT", f"/{root}/a?ephemeral=True", 1).status == 409
    assert bridge.ask("PUT", f"/{root}/a?ephemeral=False", 1).status == 200


def test_one_connection_serves_many_requests(bridge: Site, root: str) -> None:
    connection = bridge.connection()
    for number in range(50):
        assert bridge.ask("PUT", f"/{root}/a", number, on=connection).status == 200
        assert bridge.ask("GET", f"/{root}/a", on=connection).json == number
    assert isinstance(connection, http.client.HTTPConnection)
    connection.close()
