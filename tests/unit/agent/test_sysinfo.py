"""The parsers, on what a Raspberry Pi, an OpenWrt router and a Debian host say."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tega_agent import sysinfo
from tega_agent.sysinfo import Mount

PI_MOUNTS = """\
/dev/mmcblk0p2 / ext4 rw,noatime 0 0
devtmpfs /dev devtmpfs rw,relatime,size=340460k,nr_inodes=85115,mode=755 0 0
proc /proc proc rw,relatime 0 0
tmpfs /run tmpfs rw,nosuid,nodev,size=182140k,mode=755 0 0
/dev/mmcblk0p1 /boot/firmware vfat rw,relatime,fmask=0022 0 0
/dev/mmcblk0p2 /var/lib/docker ext4 rw,noatime 0 0
/dev/sda1 /media/pi/my\\040disk\\134old ext4 ro,nosuid 0 0
nas:/export /mnt/nas nfs4 rw,vers=4.2 0 0
/dev/loop0 /snap/core/1 ext4 ro,nodev 0 0
"""

OPENWRT_MOUNTS = """\
/dev/root /rom squashfs ro,relatime 0 0
proc /proc proc rw,nosuid,nodev,noexec,noatime 0 0
tmpfs /tmp tmpfs rw,nosuid,nodev,noatime 0 0
/dev/mtdblock6 /overlay jffs2 rw,noatime 0 0
overlayfs:/overlay / overlay rw,noatime,lowerdir=/,upperdir=/overlay/upper 0 0
"""

PI_MEMORY = """\
MemTotal:         931540 kB
MemFree:          120404 kB
MemAvailable:     655012 kB
Buffers:           40120 kB
SwapTotal:        102396 kB
SwapFree:         100000 kB
HugePages_Total:       0
"""

OLD_ROUTER_MEMORY = """\
MemTotal:          60452 kB
MemFree:           21844 kB
Buffers:            2084 kB
Cached:             8120 kB
SwapTotal:             0 kB
"""


def test_uptime_and_boot_time() -> None:
    assert sysinfo.uptime("2046.81 4037.70\n") == 2046.81
    assert sysinfo.boot_time("cpu 1 2\nintr 5\nbtime 1795465800\nprocesses 9\n") == 1795465800


def test_load() -> None:
    assert sysinfo.load("0.20 0.18 0.12 1/80 11206\n") == {"1m": 0.2, "5m": 0.18, "15m": 0.12}


def test_memory() -> None:
    assert sysinfo.memory(PI_MEMORY) == {
        "total": 931540 * 1024,
        "available": 655012 * 1024,
        "swap_total": 102396 * 1024,
        "swap_free": 100000 * 1024,
    }


def test_memory_of_an_old_kernel_without_swap() -> None:
    assert sysinfo.memory(OLD_ROUTER_MEMORY) == {
        "total": 60452 * 1024,
        "available": (21844 + 2084 + 8120) * 1024,
    }


def test_mounts_of_a_pi() -> None:
    assert sysinfo.mounts(PI_MOUNTS) == [
        Mount("/dev/mmcblk0p2", "/", "ext4", readonly=False),
        Mount("/dev/mmcblk0p1", "/boot/firmware", "vfat", readonly=False),
        Mount("/dev/sda1", "/media/pi/my disk\\old", "ext4", readonly=True),
    ]


def test_mounts_of_a_router() -> None:
    assert sysinfo.mounts(OPENWRT_MOUNTS) == [Mount("/dev/mtdblock6", "/overlay", "jffs2", readonly=False)]


def test_a_mount_point_that_cannot_be_an_oid_is_left_out() -> None:
    assert sysinfo.mounts(f"/dev/sda1 /{'x' * 300} ext4 rw 0 0\n/dev/sdb1 /b") == []


def test_disk() -> None:
    mount = Mount("/dev/mmcblk0p2", "/", "ext4", readonly=False)
    assert sysinfo.disk(mount, 1000, 400, 350, 4096, 50, 20) == {
        "device": "/dev/mmcblk0p2",
        "type": "ext4",
        "readonly": False,
        "size": 4_096_000,
        "used": 600 * 4096,
        "free": 350 * 4096,
        "inodes": 50,
        "inodes_used": 30,
    }


def test_a_disk_without_a_fixed_number_of_inodes() -> None:
    shown = sysinfo.disk(Mount("/dev/sda1", "/", "vfat", readonly=True), 10, 4, 4, 512, 0, 0)
    assert not {"inodes", "inodes_used"} & shown.keys()


@pytest.mark.parametrize(
    ("text", "value"),
    [("48312\n", 48.3), ("-5000\n", -5.0), ("0", 0.0), ("-274000", None), ("300000", None), ("", None)],
)
def test_temperature(text: str, value: float | None) -> None:
    assert sysinfo.temperature(text) == value


def test_sensor_names() -> None:
    assert sysinfo.sensor_name("cpu_thermal\n") == "cpu-thermal"
    assert sysinfo.sensor_name("nvme", "Composite\n") == "nvme-composite"
    assert sysinfo.sensor_name("__\n") is None
    assert sysinfo.sensor_name(None) is None
    assert sysinfo.names(["acpitz", "x", "acpitz", "acpitz"]) == ["acpitz", "x", "acpitz-2", "acpitz-3"]


def test_os_release() -> None:
    pi = 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nNAME="Debian GNU/Linux"\nVERSION_ID="12"\nID=debian\n'
    assert sysinfo.os_release(pi) == {
        "id": "debian",
        "name": "Debian GNU/Linux 12 (bookworm)",
        "version": "12",
    }
    router = "# comment\nNAME='OpenWrt'\nID=\"openwrt\"\nVERSION_ID=\nnonsense\n"
    assert sysinfo.os_release(router) == {"id": "openwrt", "name": "OpenWrt"}
    assert sysinfo.os_release('PRETTY_NAME="a \\"quoted\\" \\$name"\n') == {"name": 'a "quoted" $name'}


def test_models() -> None:
    assert sysinfo.tree_model("Raspberry Pi 4 Model B Rev 1.4\0") == "Raspberry Pi 4 Model B Rev 1.4"
    assert sysinfo.dmi_model("LENOVO\n", "20XW\n", "ThinkPad X1\n") == "LENOVO 20XW ThinkPad X1"
    assert sysinfo.dmi_model("To Be Filled By O.E.M.", "Default string", None) is None
    assert sysinfo.dmi_model("QEMU", "QEMU", "") == "QEMU"


@pytest.mark.parametrize(
    ("text", "count"), [("0-3\n", 4), ("0\n", 1), ("0,2-3,8", 4), ("", None), ("3-1", None)]
)
def test_cpus(text: str, count: int | None) -> None:
    assert sysinfo.cpus(text) == count


@pytest.mark.parametrize(
    ("state", "flags", "shown"),
    [
        ("up\n", "0x1003", "up"),
        ("down\n", "0x1003", "down"),
        ("unknown\n", "0x10d1", "up"),
        ("unknown\n", "0x1090", "down"),
        ("unknown\n", "?", "unknown"),
        ("", None, None),
    ],
)
def test_link_state(state: str, flags: str | None, shown: str | None) -> None:
    assert sysinfo.link_state(state, flags) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("DC:A6:32:01:02:03\n", "dc:a6:32:01:02:03"),
        ("00:00:00:00:00:00\n", None),
        ("", None),
        ("10.0.0.1", None),
    ],
)
def test_mac(text: str, shown: str | None) -> None:
    assert sysinfo.mac(text) == shown


def test_zone() -> None:
    assert sysinfo.zone("/usr/share/zoneinfo/Europe/Berlin", "UTC") == "Europe/Berlin"
    assert sysinfo.zone("../tmp/localtime", "Europe/Paris\n") == "Europe/Paris"
    assert sysinfo.zone(None, None) is None


@given(st.none() | st.text(max_size=200))
@settings(max_examples=100)
def test_no_text_makes_a_parser_raise(text: str | None) -> None:
    for parser in (
        sysinfo.uptime,
        sysinfo.boot_time,
        sysinfo.load,
        sysinfo.memory,
        sysinfo.mounts,
        sysinfo.temperature,
        sysinfo.sensor_name,
        sysinfo.os_release,
        sysinfo.tree_model,
        sysinfo.cpus,
        sysinfo.mac,
    ):
        parser(text)
    sysinfo.dmi_model(text, text, text)
    sysinfo.link_state(text, text)
    sysinfo.zone(text, text)
