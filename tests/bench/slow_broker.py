"""The broker on a disk whose every sync takes 200 ms, as an SD card's may."""

from __future__ import annotations

import sys
import time
from typing import Any

from tega_zmq.log.disk import OsDisk
from tega_zmq.runtime import args, logs
from tega_zmq.runtime.config import BrokerConfig
from tega_zmq.runtime.program import run

SECONDS = 0.2


class SlowFile:
    """A file that takes its time to sync; all else is the real one's."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def sync(self) -> None:
        self._file.sync()
        time.sleep(SECONDS)

    def write_sync(self, offset: int, data: bytes) -> None:
        self._file.write_sync(offset, data)
        time.sleep(SECONDS)


class SlowDisk(OsDisk):
    """The machine's file system with slow files."""

    def open(self, path: str) -> Any:
        return SlowFile(super().open(path))

    def create(self, path: str) -> Any:
        return SlowFile(super().create(path))


if __name__ == "__main__":
    config = args.parse(BrokerConfig, "tega-broker", "The broker with a slow disk.", None)
    logger = logs.setup("tega-broker", config.log_level, config.log_format)
    sys.exit(run(config, logger, SlowDisk()))
