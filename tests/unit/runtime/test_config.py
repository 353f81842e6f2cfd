"""Configuration: precedence, and errors that name the place, the key and what would be right."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tega_zmq.runtime import yamlio
from tega_zmq.runtime.config import (
    AgentConfig,
    BridgeConfig,
    BrokerConfig,
    ConfigError,
    check_endpoint,
    check_listen,
    default_tega_id,
    load,
)
from tega_zmq.runtime.schema import describe

CONF = Path(__file__).parents[3] / "conf"


def broker(environment: dict[str, str] | None = None, *flags: str) -> BrokerConfig:
    return load(BrokerConfig, (), environment, flags, hostname="gateway")


def refused(*flags: str, cls: Any = BrokerConfig, environment: dict[str, str] | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        load(cls, (), environment, flags, hostname="gateway")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def in_file(tmp_path: Path, text: str | bytes, cls: Any = BrokerConfig, **more: Any) -> Any:
    file = tmp_path / "c.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load(cls, [str(file)], hostname="gateway", **more)


# -- defaults and precedence -----------------------------------------------------------------------


def test_all_has_defaults() -> None:
    config = load(BrokerConfig, hostname="gateway")
    assert config.tega_id == "gateway"
    assert config.requests == ("tcp://127.0.0.1:8740",)
    assert config.listen.changes == "tcp://127.0.0.1:8741"
    assert (config.sync, config.history.versions, config.session.lease) == ("always", 100, 15.0)
    agent = load(AgentConfig, hostname="pi1")
    assert agent.uplink == ("tcp://127.0.0.1:8740",)
    assert agent.requests == ("ipc://./var/agent/agent.sock",)
    assert agent.sync == "interval"
    assert (agent.config, agent.operational) == ((), ("ops-pi1",))  # where the plugin `system` writes
    assert agent.log.segment < config.log.segment


def test_a_flag_wins_over_the_environment_and_that_over_files(tmp_path: Path) -> None:
    first, second = tmp_path / "1.yaml", tmp_path / "2.yaml"
    first.write_text("session: {lease: 20, heartbeat: 2}\nhistory: {versions: 5}\nsync: none\n")
    second.write_text("session: {lease: 21}\n")
    files = [str(first), str(second)]
    config = load(BrokerConfig, files)
    assert (config.session.lease, config.session.heartbeat, config.history.versions) == (21.0, 2.0, 5)
    environment = {"TEGA_SESSION__LEASE": "22", "TEGA_SYNC": "interval", "PATH": "/bin"}
    assert load(BrokerConfig, files, environment).session.lease == 22.0
    config = load(BrokerConfig, files, environment, ["session.lease=23"])
    assert (config.session.lease, config.session.heartbeat, config.sync) == (23.0, 2.0, "interval")


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_every_key_can_be_given_in_every_way(data: st.DataObject) -> None:
    cls = data.draw(st.sampled_from([BrokerConfig, AgentConfig]))
    default = load(cls, hostname="h")
    name = data.draw(st.sampled_from([key.name for key in describe(cls)]))
    value = default
    for part in name.split("."):
        value = getattr(value, part)
    plain = list(value) if isinstance(value, tuple) else value
    text = yamlio.dump_json(plain).strip() if not isinstance(plain, str) else plain
    variable = "TEGA_" + name.upper().replace(".", "__")
    assert load(cls, (), {variable: text}, hostname="h") == default
    assert load(cls, (), None, [f"{name}={text}"], hostname="h") == default


def test_an_empty_file_and_empty_sections_say_nothing(tmp_path: Path) -> None:
    default = load(BrokerConfig, hostname="gateway")
    assert in_file(tmp_path, "") == default
    assert in_file(tmp_path, "# nothing\n") == default
    assert in_file(tmp_path, "session:\nhistory: {}\n") == default


def test_lists_and_maps_on_the_command_line() -> None:
    config = broker(None, "plugins=[a, ./b]", "listen.requests=tcp://127.0.0.1:1", "plugin.net.retries=3")
    assert config.plugins == ("a", "./b")
    assert config.requests == ("tcp://127.0.0.1:1",)
    assert config.plugin == {"net": {"retries": 3}}
    assert broker(None, "history={versions: 7}").history.versions == 7
    both = broker(
        {"TEGA_HISTORY": "{versions: 7, updates: 9}"},
        "history.updates=11",
        "plugin={a: {b: 1}}",
        "plugin.a.c=2",
    )
    assert (both.history.versions, both.history.updates, both.plugin) == (7, 11, {"a": {"b": 1, "c": 2}})
    assert broker({"TEGA_HISTORY__VERSIONS": "7"}, "history={updates: 9}").history.versions == 7
    assert broker({"TEGA_PLUGIN": "{net: {a: [1, x]}}"}).plugin == {"net": {"a": [1, "x"]}}


def test_one_text_may_stand_for_a_list_of_one(tmp_path: Path) -> None:
    config = in_file(tmp_path, "listen: {requests: tcp://127.0.0.1:1}\nplugins: ./b\n")
    assert (config.requests, config.plugins) == (("tcp://127.0.0.1:1",), ("./b",))


def test_the_documented_configurations_are_read(tmp_path: Path) -> None:
    config = in_file(
        tmp_path,
        """
tega_id: gateway
data_dir: ./var/broker
listen:
  requests: tcp://127.0.0.1:8740
  changes: tcp://127.0.0.1:8741
bridge: {enabled: true, listen: http://127.0.0.1:8739}
sync: always          # interval, none
history: {versions: 100}
session: {lease: 15}
limits: {value: 1048576}
plugins: []
""",
    )
    assert config == load(BrokerConfig, hostname="gateway")
    agent = in_file(
        tmp_path,
        """
tega_id: pi1
data_dir: ./var/pi1
uplink: [tcp://127.0.0.1:8740]     # tried in this order
listen: {requests: ipc://./var/pi1/agent.sock}
config: [config-pi1]
operational: [ops-pi1]
plugins: [tega_agent.plugins.system, ./plugins]
sync: interval
""",
        AgentConfig,
    )
    assert agent.requests == ("ipc://./var/pi1/agent.sock",)
    assert (agent.config, agent.operational) == (("config-pi1",), ("ops-pi1",))


def test_text_on_the_command_line_is_taken_as_it_is() -> None:
    assert broker(None, "tega_id=12").tega_id == "12"
    assert broker(None, "data_dir=on").data_dir == "on"
    assert broker(None, "data_dir=~").data_dir == "~"
    assert broker(None, "listen.changes=null").listen.changes is None


# -- errors ----------------------------------------------------------------------------------------


def test_an_unknown_key_is_named_with_the_nearest_and_the_place(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"c\.yaml:3: unknown key session\.leese; did you mean session\.lease\?"
    ):
        in_file(tmp_path, "sync: none\nsession:\n  leese: 3\n")
    assert refused("sesion.lease=3") == "--set sesion.lease=3: unknown key sesion; did you mean session?"
    assert refused(environment={"TEGA_SYNK": "always"}) == (
        "environment TEGA_SYNK: unknown key synk; did you mean sync?"
    )
    assert "known here: log.segment, log.snapshot_after, log.snapshots" in refused("log.qqqq=1")


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("session.lease=x", "session.lease must be a number of seconds from 0.5 to 86400, not 'x'"),
        ("session.lease=0", "session.lease must be a number of seconds from 0.5 to 86400, not 0"),
        ("session.lease=.nan", "session.lease must be a number of seconds from 0.5 to 86400, not nan"),
        ("session.lease=true", "session.lease must be a number of seconds from 0.5 to 86400, not true"),
        ("session.lease=null", "session.lease must be a number of seconds from 0.5 to 86400, not null"),
        ("session.heartbeat=[1]", "session.heartbeat must be a number of seconds from 0.1 to 28800 or null"),
        ("limits.value=1.5", "limits.value must be a whole number of bytes from 1024 to 4194304, not 1.5"),
        ("limits.value=true", "limits.value must be a whole number of bytes"),
        ("sync=off", "sync must be one of always, interval, none, not 'off'"),
        ("insecure=1", "insecure must be true or false, not 1"),
        ("plugins={a: 1}", "plugins must be a text or a list of texts, not a map"),
        ("plugins=[1]", "plugins must be a text or a list of texts, not [1]"),
        ("plugin=3", "plugin must be a map, not 3"),
        ("session=3", "session is a section of keys, not 3"),
        ("tega_id=a b", "tega_id: 'a b' is no tega_id"),
        ("tega_id={hostname}/x", "is no tega_id"),
        ("data_dir=", "data_dir: must not be empty"),
        ("listen.requests=[]", "listen.requests: at least one endpoint"),
        ("listen.requests=8740", "listen.requests: '8740' is no endpoint"),
        ("listen.changes=ipc://x", "listen.changes: 'ipc://x': the changes are published on tcp"),
        ("bridge.listen=8080", "bridge.listen: '8080' is no address of a web server"),
        ("session.lease", "write --set KEY=VALUE"),
        ("=3", "write --set KEY=VALUE"),
        ("a..b=3", "write --set KEY=VALUE"),
        ("session.lease=[", "no YAML"),
        ("session.lease={", "session.lease must be a number of seconds from 0.5 to 86400, not '{'"),
        ("plugins=[a-{x}]", "in a list, texts with braces stand in quotes"),
        ("session.lease={a: 1}", "session.lease must be a number of seconds from 0.5 to 86400, not a map"),
        ("session.lease=" + "9" * 100, "session.lease must be a number"),
        ("sync=" + "a" * 200, "sync must be one of always, interval, none, not 'aaaa"),
    ],
)
def test_wrong_values_are_named(flag: str, message: str) -> None:
    said = refused(flag)
    assert said.startswith("--set ")
    assert message in said
    assert len(said) < 300


def test_the_variable_of_the_shell_is_no_key() -> None:
    assert broker({"TEGA_SERVER": "tcp://gw:8740"}) == broker()


def test_an_environment_variable_without_a_key() -> None:
    assert "no key" in refused(environment={"TEGA_": "1"})
    assert "no key" in refused(environment={"TEGA_A____B": "1"})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sync: none\nsync: always\n", r"c\.yaml:2: the key 'sync' stands twice"),
        ("sync: !x none\n", r"c\.yaml:1: the tag !x"),
        ("- a\n", r"c\.yaml:1: a config file is a map"),
        ("just text", r"c\.yaml:1: a config file is a map"),
        (b"tega_id: \xff", r"c\.yaml:1: not UTF-8"),
        ("a: [", r"c\.yaml:\d+: no YAML"),
        ("session:\n  lease: soon\n", r"c\.yaml:2: session\.lease must be a number of seconds"),
        ("history: 3\n", r"c\.yaml:1: history is a section of keys, not 3"),
        ("tega_id: 12\n", r"c\.yaml:1: tega_id must be a text, not 12"),
        ("plugins: 3\n", r"c\.yaml:1: plugins must be a text or a list of texts, not 3"),
        ("\nlisten:\n  requests:\n    - tcp:/x\n", r"c\.yaml:3: listen\.requests: 'tcp:/x' is no endpoint"),
        ("x" * (1 << 20) + "x", "longer than 1048576 bytes"),
    ],
)
def test_bad_files(tmp_path: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        in_file(tmp_path, text)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.yaml: cannot be read: No such file"):
        load(BrokerConfig, [str(tmp_path / "absent.yaml")])


# -- endpoints -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "endpoint",
    [
        "tcp://127.0.0.1:8740",
        "tcp://127.9.9.9:*",
        "tcp://[::1]:1",
        "tcp://localhost:0",
        "ipc://./x",
        "ipc://@name",
    ],
)
def test_a_node_may_listen_on_loopback(endpoint: str) -> None:
    assert check_listen(endpoint, insecure=False) == endpoint


@pytest.mark.parametrize(
    "endpoint",
    ["tcp://*:8740", "tcp://0.0.0.0:1", "tcp://[::]:1", "tcp://eth0:1", "tcp://10.0.0.1:1", "tcp://gw:1"],
)
def test_elsewhere_only_if_told(endpoint: str) -> None:
    with pytest.raises(ConfigError, match="insecure: true"):
        check_listen(endpoint, insecure=False)
    assert check_listen(endpoint, insecure=True) == endpoint


@pytest.mark.parametrize("key", ["listen.requests", "listen.changes"])
@pytest.mark.parametrize("cls", [BrokerConfig, AgentConfig])
def test_the_programs_refuse_it_at_start(cls: Any, key: str) -> None:
    assert refused(f"{key}=tcp://*:8740", cls=cls).startswith(
        f"{key}: tcp://*:8740 can be reached from other hosts"
    )
    config = load(cls, (), None, [f"{key}=tcp://*:8740", "insecure=true"])
    assert config.insecure


@pytest.mark.parametrize(
    "endpoint",
    [
        "",
        "8740",
        "http://x:1",
        "tcp://",
        "tcp://host",
        "tcp://:1",
        "tcp://a:65536",
        "tcp://a:b",
        "tcp://a:²",
        "tcp://::1:80",
        "ipc://",
        "ipc://" + "x" * 108,
        "ipc://" + "ü" * 54,
        "inproc://x",
    ],
)
def test_no_endpoints(endpoint: str) -> None:
    with pytest.raises(ConfigError):
        check_endpoint(endpoint)


def test_the_path_of_a_socket_is_bounded() -> None:
    assert check_endpoint("ipc://" + "x" * 107)
    said = refused("data_dir=" + "d" * 100, cls=AgentConfig)
    assert said.startswith("data_dir: the path of the socket has 111 bytes, and the system allows 107")


# -- names -----------------------------------------------------------------------------------------


def test_host_names_become_tega_ids() -> None:
    assert default_tega_id("pi1") == "pi1"
    assert default_tega_id("pi 1.lan") == "pi-1-lan"
    assert default_tega_id("...") == "node"
    assert default_tega_id("x" * 100) == "x" * 64
    assert load(AgentConfig, (), None, ["tega_id={hostname}-b"], hostname="pi.1").tega_id == "pi-1-b"
    with pytest.raises(ConfigError, match="at most 64"):
        load(AgentConfig, (), None, ["tega_id=a-{hostname}"], hostname="x" * 64)


def test_roots_and_folder_may_hold_the_tega_id() -> None:
    flags = [
        "tega_id=pi7",
        "config=['config-{tega_id}', common]",
        "operational=ops-{tega_id}",
        "data_dir=/d/{tega_id}",
    ]
    config = load(AgentConfig, (), None, flags)
    assert config.config == ("config-pi7", "common")
    assert config.operational == ("ops-pi7",)
    assert config.data_dir == "/d/pi7"


def test_roots_must_be_roots_and_have_one_owner() -> None:
    said = refused("config=[a]", "operational=[b, a]", cls=AgentConfig)
    assert said == "operational: a stands in config already; a root has one owner"
    assert "a stands in config already" in refused("config=[a, a]", cls=AgentConfig)
    assert refused("config=[_x]", cls=AgentConfig).startswith("config: _x: _x is reserved")
    assert refused("operational=['']", cls=AgentConfig).startswith("operational:")


# -- what depends on several keys ------------------------------------------------------------------


def test_three_heartbeats_fit_into_a_lease() -> None:
    assert broker().session.beat == 3.0
    assert broker(None, "session.lease=2").session.beat == 0.4
    assert broker(None, "session.heartbeat=4.9").session.beat == 4.9
    assert "three of them must be shorter than session.lease 15" in refused("session.heartbeat=5")


@pytest.mark.parametrize(
    ("flags", "updates"),
    [
        ([], 2000),
        (["history.versions=100"], 2000),
        (["history.versions=5"], 5),
        (["history.versions=5000"], 5000),
        (["history.updates=300"], 300),
        (["history.updates=3"], 100),
    ],
)
def test_how_many_commits_are_kept_for_catching_up(flags: list[str], updates: int) -> None:
    assert broker(None, *flags).history.kept_updates == updates


def test_the_waits_of_reconnect_are_in_order() -> None:
    assert "reconnect.min 20 is greater than reconnect.max 15" in refused("reconnect.min=20", cls=AgentConfig)


def test_the_configuration_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        broker().tega_id = "x"  # type: ignore[misc]


# -- samples ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "cls"),
    [("broker.yaml", BrokerConfig), ("agent.yaml", AgentConfig), ("bridge.yaml", BridgeConfig)],
)
def test_a_sample_holds_every_key_with_its_default_and_a_comment(name: str, cls: Any) -> None:
    text = (CONF / name).read_text()
    value, lines = yamlio.load_with_lines(text, name)
    assert load(cls, [str(CONF / name)], hostname="h") == load(cls, hostname="h")
    rows = text.splitlines()
    for key in describe(cls):
        at = tuple(key.name.split("."))
        found = value
        for part in at:
            assert part in found, f"{name} lacks {key.name}"
            found = found[part]
        default = list(key.default) if isinstance(key.default, tuple) else key.default
        assert found == default, f"{name}: {key.name}"
        above = rows[lines[at] - 2].strip()
        assert above.startswith("#") or "#" in rows[lines[at] - 1], f"{name}: {key.name} has no comment"
        comment = _comment(rows, lines[at])
        assert key.unit in comment, f"{name}: {key.name} does not say its unit, {key.unit}"
        assert "Default" in comment, f"{name}: {key.name} does not say its default"


def _comment(rows: list[str], line: int) -> str:
    """The comment above the row with number `line`."""
    found: list[str] = []
    for row in reversed(rows[: line - 1]):
        if not row.strip().startswith("#"):
            break
        found.append(row)
    return " ".join(found)


@pytest.mark.parametrize("path", sorted((CONF / "demo").glob("*.yaml")), ids=lambda path: path.name)
def test_the_demo_configs_are_valid(path: Path) -> None:
    load(BrokerConfig if path.name == "broker.yaml" else AgentConfig, [str(path)])
