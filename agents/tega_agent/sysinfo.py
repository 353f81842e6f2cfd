"""What the files of /proc, /sys and /etc say: pure functions of their text.

Each returns None, or leaves out, what is not there; none raises for text that makes no sense. Sizes are in
bytes, times in seconds, temperatures in degrees Celsius.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable
from typing import Any, NamedTuple

from tega_zmq import paths
from tega_zmq.errors import InvalidPath

__all__ = [
    "Mount",
    "boot_time",
    "cpus",
    "disk",
    "dmi_model",
    "link_state",
    "load",
    "mac",
    "memory",
    "mounts",
    "names",
    "os_release",
    "sensor_name",
    "temperature",
    "tree_model",
    "uptime",
    "usable",
    "zone",
]

_REAL = frozenset(
    {
        *("bcachefs", "btrfs", "exfat", "ext2", "ext3", "ext4", "f2fs", "fuseblk", "hfsplus", "jffs2", "jfs"),
        *("msdos", "nilfs2", "ntfs", "ntfs3", "reiserfs", "ubifs", "vfat", "xfs", "yaffs", "yaffs2", "zfs"),
    }
)
"""File systems with room of their own. Not among them: those of the network, since asking one whose server is
gone can block for ever; images that are always full (squashfs, erofs, iso9660); and what lives in memory."""

_PLACEHOLDERS = (
    "to be filled",
    "o.e.m",
    "default string",
    "system product name",
    "system manufacturer",
    "none",
)


def _first_float(text: str | None) -> float | None:
    try:
        return float((text or "").split()[0])
    except (ValueError, IndexError):
        return None


def uptime(text: str | None) -> float | None:
    """Seconds since the system started, from /proc/uptime."""
    return _first_float(text)


def boot_time(stat: str | None) -> int | None:
    """Unix seconds at which the system started, from /proc/stat."""
    match = re.search(r"^btime (\d+)$", stat or "", re.MULTILINE)
    return int(match.group(1)) if match else None


def load(text: str | None) -> dict[str, float]:
    """The load over 1, 5 and 15 minutes, from /proc/loadavg."""
    parts = (text or "").split()[:3]
    try:
        return dict(zip(("1m", "5m", "15m"), map(float, parts), strict=True))
    except ValueError:
        return {}


def memory(text: str | None) -> dict[str, int]:
    """`total`, `available`, `swap_total`, `swap_free`, from /proc/meminfo; without swap not the latter."""
    found = {
        m.group(1): int(m.group(2)) * 1024
        for m in re.finditer(r"^(\w+): +(\d+) kB$", text or "", re.MULTILINE)
    }
    if "MemTotal" not in found:
        return {}
    result = {"total": found["MemTotal"]}
    if "MemAvailable" in found:
        result["available"] = found["MemAvailable"]
    elif "MemFree" in found:
        # Kernels before 3.14 leave the sum to the reader.
        result["available"] = sum(found.get(name, 0) for name in ("MemFree", "Buffers", "Cached"))
    if found.get("SwapTotal"):
        result["swap_total"] = found["SwapTotal"]
        result["swap_free"] = found.get("SwapFree", 0)
    return result


class Mount(NamedTuple):
    """One mounted file system."""

    device: str
    point: str
    type: str
    readonly: bool


def mounts(text: str | None) -> list[Mount]:
    """The file systems with room of their own, from /proc/mounts; each device once, at its first mount."""
    found: dict[str, Mount] = {}
    for line in (text or "").splitlines():
        parts = line.split(" ")
        if len(parts) < 4 or parts[2] not in _REAL:
            continue
        device, point = _unescape(parts[0]), _unescape(parts[1])
        if device.startswith("/dev/loop") or not usable(point):
            continue
        found.setdefault(device, Mount(device, point, parts[2], "ro" in parts[3].split(",")))
    return list(found.values())


def _unescape(text: str) -> str:
    """Undo how the kernel writes white space and backslashes; bytes that are no UTF-8 become U+FFFD."""
    text = re.sub(r"\\([0-3][0-7]{2})", lambda match: chr(int(match.group(1), 8)), text)
    return text.encode(errors="surrogateescape").decode(errors="replace")


def disk(
    mount: Mount, blocks: int, free: int, available: int, size: int, files: int, free_files: int
) -> dict[str, Any]:
    """What is shown of a mount; the numbers are those of statvfs, `size` that of a block in bytes."""
    shown: dict[str, Any] = {
        "device": mount.device,
        "type": mount.type,
        "readonly": mount.readonly,
        "size": blocks * size,
        "used": (blocks - free) * size,
        "free": available * size,
    }
    if files > 0:
        # Some file systems (vfat, btrfs) make inodes as they need them, and say 0.
        shown["inodes"] = files
        shown["inodes_used"] = files - free_files
    return shown


def temperature(text: str | None) -> float | None:
    """Degrees from a file in thousandths of a degree; None for what no sensor measures."""
    value = _first_float(text)
    if value is None or not -100_000 < value < 250_000:
        return None
    return round(value / 1000, 1)


def sensor_name(chip: str | None, label: str | None = None) -> str | None:
    """A name for a sensor, that can be an oid: `cpu-thermal`, `nvme-composite`."""
    text = "-".join(part.strip() for part in (chip, label) if part and part.strip())
    text = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:64]
    return text or None


def names(wanted: Iterable[str]) -> list[str]:
    """The given names; those that come again are numbered: `acpitz`, `acpitz-2`."""
    seen: dict[str, int] = {}
    result = []
    for name in wanted:
        seen[name] = seen.get(name, 0) + 1
        result.append(name if seen[name] == 1 else f"{name}-{seen[name]}")
    return result


def os_release(text: str | None) -> dict[str, str]:
    """`id`, `name`, `version`, from /etc/os-release."""
    found: dict[str, str] = {}
    for line in (text or "").splitlines():
        key, equals, value = line.strip().partition("=")
        if equals and re.fullmatch(r"[A-Z0-9_]+", key):
            if len(value) >= 2 and value[0] in "\"'" and value[-1] == value[0]:
                value = re.sub(r'\\([\\"$`])', r"\1", value[1:-1])
            found[key] = value
    wanted = (("id", "ID"), ("name", "PRETTY_NAME"), ("version", "VERSION_ID"))
    result = {name: found[key] for name, key in wanted if found.get(key)}
    if "name" not in result and found.get("NAME"):
        result["name"] = found["NAME"]
    return result


def tree_model(text: str | None) -> str | None:
    """The board, from /proc/device-tree/model."""
    return (text or "").strip("\0 \t\r\n") or None


def dmi_model(vendor: str | None, product: str | None, version: str | None = None) -> str | None:
    """The board, from the files of /sys/class/dmi/id; what the maker did not fill in is left out."""
    parts: list[str] = []
    for text in (vendor, product, version):
        text = (text or "").strip()
        filled = text and not text.lower().startswith(_PLACEHOLDERS)
        if filled and not any(text in part for part in parts):
            parts.append(text)
    return " ".join(parts) or None


def cpus(text: str | None) -> int | None:
    """How many processors are in use, from /sys/devices/system/cpu/online, e.g. `0-3` or `0,2-3`."""
    count = 0
    try:
        for part in (text or "").strip().split(","):
            first, _, last = part.partition("-")
            count += int(last or first) - int(first) + 1
    except ValueError:
        return None
    return count if count > 0 else None


def link_state(operstate: str | None, flags: str | None) -> str | None:
    """`up`, `down`, `dormant`...; where the driver does not know (tunnels), the interface's flags tell."""
    state = (operstate or "").strip()
    if state != "unknown":
        return state or None
    with contextlib.suppress(ValueError):
        return "up" if int(flags or "", 16) & 0x41 == 0x41 else "down"
    return state


def mac(address: str | None) -> str | None:
    """The hardware address; None for an interface without one."""
    text = (address or "").strip().lower()
    return text if re.fullmatch(r"[0-9a-f]{2}(:[0-9a-f]{2}){5,19}", text) and text.strip("0:") else None


def zone(link: str | None, text: str | None) -> str | None:
    """The time zone, from where /etc/localtime points, else from /etc/timezone or OpenWrt's /etc/TZ."""
    _, found, name = (link or "").partition("zoneinfo/")
    return name if found and name else (text or "").strip() or None


def usable(oid: str) -> bool:
    """Whether a name can be a key of the tree."""
    try:
        paths.check_oid(oid, "name")
    except InvalidPath:
        return False
    return True
