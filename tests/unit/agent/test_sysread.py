"""A reading of a whole device, from a folder that looks like one."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tega_agent.netlink import Address
from tega_agent.sysread import Reader

PI = {
    "proc/sys/kernel/hostname": "pi1\n",
    "proc/sys/kernel/osrelease": "6.6.31+rpt-rpi-v8\n",
    "proc/device-tree/model": "Raspberry Pi 3 Model B Plus Rev 1.3\0",
    "proc/uptime": "90061.20 350000.00\n",
    "proc/stat": "cpu  1 2 3\nbtime 1795465800\n",
    "proc/loadavg": "0.20 0.18 0.12 1/80 11206\n",
    "proc/meminfo": "MemTotal:         931540 kB\nMemAvailable:     655012 kB\n",
    "proc/mounts": "/dev/mmcblk0p2 / ext4 rw,noatime 0 0\n/dev/mmcblk0p1 /boot vfat rw 0 0\n",
    "etc/os-release": "ID=raspbian\nVERSION_ID=12\n",
    "etc/timezone": "Europe/Berlin\n",
    "sys/devices/system/cpu/online": "0-3\n",
    "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
    "sys/class/thermal/thermal_zone0/temp": "48312\n",
    "sys/class/thermal/cooling_device0/type": "fan\n",
    "sys/class/hwmon/hwmon0/name": "cpu_thermal\n",
    "sys/class/hwmon/hwmon0/temp1_input": "48312\n",
    "sys/class/hwmon/hwmon1/name": "nvme\n",
    "sys/class/hwmon/hwmon1/temp1_input": "31850\n",
    "sys/class/hwmon/hwmon1/temp1_label": "Composite\n",
    "sys/class/hwmon/hwmon1/temp2_input": "broken\n",
    "sys/class/hwmon/hwmon2/temp1_input": "1000\n",
    "sys/class/net/lo/ifindex": "1\n",
    "sys/class/net/eth0/ifindex": "2\n",
    "sys/class/net/eth0/address": "b8:27:eb:01:02:03\n",
    "sys/class/net/eth0/operstate": "up\n",
    "sys/class/net/eth0/mtu": "1500\n",
    "sys/class/net/eth0/statistics/rx_bytes": "1000\n",
    "sys/class/net/eth0/statistics/tx_bytes": "2000\n",
    "sys/class/net/wg0/ifindex": "5\n",
    "sys/class/net/wg0/operstate": "unknown\n",
    "sys/class/net/wg0/flags": "0x10d1\n",
    "sys/class/net/_odd/ifindex": "6\n",
}


def device(folder: Path, files: dict[str, str]) -> str:
    for name, text in files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return str(folder)


def statvfs(root: str) -> Any:
    def ask(point: str) -> Any:
        if point != f"{root}/":
            raise OSError("gone")
        return SimpleNamespace(
            f_blocks=1000, f_bfree=400, f_bavail=350, f_frsize=4096, f_files=50, f_ffree=20
        )

    return ask


def test_a_pi(tmp_path: Path) -> None:
    root = device(tmp_path, PI)
    known = [Address(2, 6, "fd00::2/64"), Address(2, 4, "10.0.0.3/24"), Address(2, 4, "10.0.0.2/24")]
    reading = Reader(root, statvfs=statvfs(root), addresses=lambda: known).read()
    assert reading.pop("machine") == os.uname().machine
    assert reading == {
        "hostname": "pi1",
        "model": "Raspberry Pi 3 Model B Plus Rev 1.3",
        "kernel": "6.6.31+rpt-rpi-v8",
        "os": {"id": "raspbian", "version": "12"},
        "timezone": "Europe/Berlin",
        "cpus": 4,
        "booted": 1795465800,
        "uptime": 90061.2,
        "load": {"1m": 0.2, "5m": 0.18, "15m": 0.12},
        "memory": {"total": 931540 * 1024, "available": 655012 * 1024},
        "disks": {
            "/": {
                "device": "/dev/mmcblk0p2",
                "type": "ext4",
                "readonly": False,
                "size": 4096000,
                "used": 600 * 4096,
                "free": 350 * 4096,
                "inodes": 50,
                "inodes_used": 30,
            }
        },
        "temperatures": {"cpu-thermal": 48.3, "nvme-composite": 31.9},
        "interfaces": {
            "eth0": {
                "mac": "b8:27:eb:01:02:03",
                "state": "up",
                "mtu": 1500,
                "rx_bytes": 1000,
                "tx_bytes": 2000,
                "ipv4": ["10.0.0.2/24", "10.0.0.3/24"],
                "ipv6": ["fd00::2/64"],
            },
            "wg0": {"state": "up"},
        },
    }


def test_each_file_may_be_missing(tmp_path: Path) -> None:
    root = device(tmp_path, PI)
    whole = Reader(root, statvfs=statvfs(root), addresses=list).read()
    for name in PI:
        (tmp_path / name).rename(tmp_path / "away")
        reading = Reader(root, statvfs=statvfs(root), addresses=list).read()
        assert reading.keys() <= whole.keys()
        (tmp_path / "away").rename(tmp_path / name)


def test_an_empty_device(tmp_path: Path) -> None:
    assert Reader(str(tmp_path), addresses=list).read().keys() == {"machine"}


def test_files_that_are_no_text(tmp_path: Path) -> None:
    root = device(tmp_path, PI)
    for name in PI:
        (tmp_path / name).write_bytes(b"\xff\xfe\0\x80" * 50)
    Reader(root, statvfs=statvfs(root), addresses=list).read()


def test_this_machine() -> None:
    reading = Reader().read()
    assert reading["kernel"] == os.uname().release
    assert reading["memory"]["total"] > reading["memory"]["available"] > 0
    assert reading["uptime"] > 0
