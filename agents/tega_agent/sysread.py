"""One reading of the system: the files that `tega_agent.sysinfo` makes sense of.

What is missing on a device is missing in the reading; nothing here raises for it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from tega_agent import netlink, sysinfo

__all__ = ["Reader"]

MAX_INTERFACES = 64
MAX_DISKS = 32
MAX_SENSORS = 32


class Reader:
    """Reads the system whose files are below `root`."""

    def __init__(
        self,
        root: str = "/",
        *,
        statvfs: Callable[[str], os.statvfs_result] = os.statvfs,
        addresses: Callable[[], list[netlink.Address]] = netlink.addresses,
    ) -> None:
        """`statvfs` and `addresses` ask the kernel for what stands in no file."""
        self._root = root.rstrip("/")
        self._statvfs = statvfs
        self._addresses = addresses

    def read(self) -> dict[str, Any]:
        """Return the whole reading, unrounded. docs/plugins.md lists its leaves."""
        text = self._text
        reading = {
            "hostname": (text("/proc/sys/kernel/hostname") or "").strip(),
            "model": self._model(),
            "kernel": (text("/proc/sys/kernel/osrelease") or "").strip(),
            "machine": os.uname().machine,
            "os": sysinfo.os_release(text("/etc/os-release") or text("/usr/lib/os-release")),
            "timezone": sysinfo.zone(self._link("/etc/localtime"), text("/etc/timezone") or text("/etc/TZ")),
            "cpus": sysinfo.cpus(text("/sys/devices/system/cpu/online")),
            "booted": sysinfo.boot_time(text("/proc/stat")),
            "uptime": sysinfo.uptime(text("/proc/uptime")),
            "load": sysinfo.load(text("/proc/loadavg")),
            "memory": sysinfo.memory(text("/proc/meminfo")),
            "disks": self._disks(),
            "temperatures": self._temperatures(),
            "interfaces": self._interfaces(),
        }
        return {name: value for name, value in reading.items() if value not in (None, "", {})}

    # -- files -------------------------------------------------------------------------------------

    def _text(self, path: str) -> str | None:
        try:
            with open(self._root + path, "rb", buffering=0) as file:
                parts = []
                while part := file.read(65536):
                    parts.append(part)
        except OSError:
            # Sensors and links answer with errors of many kinds while they are off.
            return None
        return b"".join(parts).decode(errors="surrogateescape" if path == "/proc/mounts" else "replace")

    def _list(self, path: str) -> list[str]:
        try:
            return sorted(os.listdir(self._root + path))
        except OSError:
            return []

    def _link(self, path: str) -> str | None:
        try:
            return os.readlink(self._root + path)
        except OSError:
            return None

    # -- parts -------------------------------------------------------------------------------------

    def _model(self) -> str | None:
        dmi = "/sys/class/dmi/id/"
        return sysinfo.tree_model(self._text("/proc/device-tree/model")) or sysinfo.dmi_model(
            self._text(dmi + "sys_vendor"),
            self._text(dmi + "product_name"),
            self._text(dmi + "product_version"),
        )

    def _disks(self) -> dict[str, Any]:
        shown: dict[str, Any] = {}
        for mount in sysinfo.mounts(self._text("/proc/mounts"))[:MAX_DISKS]:
            try:
                stat = self._statvfs((self._root + mount.point) if self._root else mount.point)
            except OSError:
                continue
            shown[mount.point] = sysinfo.disk(
                mount,
                stat.f_blocks,
                stat.f_bfree,
                stat.f_bavail,
                stat.f_frsize,
                stat.f_files,
                stat.f_ffree,
            )
        return shown

    def _temperatures(self) -> dict[str, float]:
        found: list[tuple[str, float]] = []
        zones = set()
        for entry in self._list("/sys/class/thermal"):
            if entry.startswith("thermal_zone"):
                base = f"/sys/class/thermal/{entry}"
                name = sysinfo.sensor_name(self._text(f"{base}/type")) or sysinfo.sensor_name(entry)
                value = sysinfo.temperature(self._text(f"{base}/temp"))
                if name is not None and value is not None:
                    zones.add(name)
                    found.append((name, value))
        for entry in self._list("/sys/class/hwmon"):
            base = f"/sys/class/hwmon/{entry}"
            chip = sysinfo.sensor_name(self._text(f"{base}/name"))
            if chip is None or chip in zones:
                # The kernel shows each thermal zone here once more.
                continue
            for file in self._list(base):
                if file.startswith("temp") and file.endswith("_input"):
                    label = self._text(f"{base}/{file.removesuffix('input')}label")
                    name = sysinfo.sensor_name(chip, label)
                    value = sysinfo.temperature(self._text(f"{base}/{file}"))
                    if name is not None and value is not None:
                        found.append((name, value))
        found = found[:MAX_SENSORS]
        return dict(zip(sysinfo.names(name for name, _ in found), (value for _, value in found), strict=True))

    def _interfaces(self) -> dict[str, Any]:
        known = self._addresses()
        shown: dict[str, Any] = {}
        for name in self._list("/sys/class/net"):
            if name == "lo" or not sysinfo.usable(name) or len(shown) >= MAX_INTERFACES:
                continue
            base = f"/sys/class/net/{name}/"
            index = self._number(base + "ifindex")
            entry: dict[str, Any] = {
                "mac": sysinfo.mac(self._text(base + "address")),
                "state": sysinfo.link_state(self._text(base + "operstate"), self._text(base + "flags")),
                "mtu": self._number(base + "mtu"),
                "rx_bytes": self._number(base + "statistics/rx_bytes"),
                "tx_bytes": self._number(base + "statistics/tx_bytes"),
            }
            for version in (4, 6):
                texts = sorted(
                    each.text for each in known if each.interface == index and each.version == version
                )
                entry[f"ipv{version}"] = texts or None
            entry = {key: value for key, value in entry.items() if value is not None}
            if entry:
                shown[name] = entry
        return shown

    def _number(self, path: str) -> int | None:
        try:
            return int(self._text(path) or "")
        except ValueError:
            return None
