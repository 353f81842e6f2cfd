"""A load that knows what it was told: writers whose roots can be checked to the last commit.

Each writer keeps what was acknowledged and what has an unknown outcome. A root that one writer alone counts
up in has a version for each commit, so that a write that was lost, or done twice, shows in the version.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from tega_zmq import errors
from tega_zmq.client.blocking import Client
from tega_zmq.client.results import Change
from tests.processes import until

NOT_DONE = (errors.Offline, errors.OwnerAway, errors.TransactionExpired)
"""A write that fails so was not done."""

PAUSE = 0.02
"""Seconds after a failure, before the next try."""


class Wrong(AssertionError):
    """A promise was broken."""


def unknown(error: errors.TegaError) -> bool:
    """Whether the write that failed so may have been done. Raises what no fault explains."""
    if isinstance(error, NOT_DONE):
        return False
    if isinstance(error, errors.Timeout | errors.Disconnected | errors.StorageError):
        return error.outcome != "none"
    raise error


class Worker:
    """Does `step` again and again in a thread of its own, until `Load.stop`."""

    def __init__(self, client: Client, name: str) -> None:
        self.client = client
        self.name = name
        self.acknowledged = 0
        self.failures = 0

    def step(self) -> bool:
        """Do one thing; return whether it was acknowledged."""
        raise NotImplementedError

    def check(self) -> None:
        """Compare with what stands there now, after the load. May raise `TegaError` while it settles."""


class Counter(Worker):
    """Counts `ROOT.n` up with expected versions; nobody else writes the root, so version = n - 1."""

    def __init__(self, client: Client, root: str, timeout: float = 20.0) -> None:
        super().__init__(client, f"counter {root} by {client.tega_id}")
        self.path = (root, "n")
        self.timeout = timeout
        self.value = 0
        """The last n that is known to be there."""
        self.doubtful = False
        """The next n may be there already."""

    def step(self) -> bool:
        n = self.value + 1
        try:
            done = self.client.put(self.path, n, version=n - 2 if n > 1 else "absent", timeout=self.timeout)
        except errors.Collision as error:
            if not self.doubtful or error.actual != n - 1:
                raise Wrong(f"{self.name}: {error}, doubtful={self.doubtful}") from error
            self.value, self.doubtful = n, False
            return True
        except errors.TegaError as error:
            self.doubtful = unknown(error) or self.doubtful
            return False
        if done.version != n - 1:
            raise Wrong(f"{self.name}: n={n} was acknowledged as version {done.version}")
        self.value, self.doubtful = n, False
        return True

    def check(self) -> None:
        if self.value == 0 and not self.doubtful:
            return
        node = self.client.node(self.path)
        if node.value != self.value and not (self.doubtful and node.value == self.value + 1):
            raise Wrong(f"{self.name}: {self.value} was acknowledged, {node.value} is there")
        if node.version != node.value - 1:
            raise Wrong(f"{self.name}: n={node.value} has version {node.version}")


class Sequence(Worker):
    """Puts 1, 2, 3... to `ROOT.n` without asking for a version; nobody else writes the root."""

    def __init__(self, client: Client, root: str, timeout: float = 20.0) -> None:
        super().__init__(client, f"sequence {root} by {client.tega_id}")
        self.path = (root, "n")
        self.timeout = timeout
        self.n = 0
        self.last = 0
        self.done = 0
        self.doubtful = 0
        self.version = -1

    def step(self) -> bool:
        self.n += 1
        try:
            done = self.client.put(self.path, self.n, timeout=self.timeout)
        except errors.TegaError as error:
            self.doubtful += unknown(error)
            return False
        self.done += 1
        self.last = self.n
        assert done.version is not None
        if not self.done - 1 <= done.version < self.done + self.doubtful or done.version <= self.version:
            raise Wrong(f"{self.name}: {self.done} writes, {self.doubtful} unknown; told {done}")
        self.version = done.version
        return True

    def check(self) -> None:
        if self.last == 0:
            return
        node = self.client.node(self.path)
        if not self.last <= node.value <= self.n:
            raise Wrong(f"{self.name}: {self.last} was acknowledged, {node.value} is there")
        if not self.done - 1 <= node.version < self.done + self.doubtful:
            raise Wrong(
                f"{self.name}: version {node.version} after {self.done} writes, {self.doubtful} unknown"
            )


class Pair(Worker):
    """Puts the same number to two roots in one transaction, and sees that they are never apart."""

    def __init__(self, client: Client, roots: tuple[str, str], timeout: float = 20.0) -> None:
        super().__init__(client, f"transaction {roots} by {client.tega_id}")
        self.roots = roots
        self.timeout = timeout
        self.n = 0
        self.last = 0

    def step(self) -> bool:
        self.n += 1
        try:
            with self.client.transaction(timeout=self.timeout) as tx:
                for root in self.roots:
                    tx.put((root, "n"), self.n, timeout=self.timeout)
            self.last = self.n
            self.look()
        except errors.TegaError as error:
            unknown(error)
            return False
        return True

    def look(self) -> list[int]:
        """Return what both hold, read at once."""
        found = self.client.find(rf"({'|'.join(self.roots)})\.n", timeout=self.timeout)
        values = [each.value for each in found]
        if len(values) not in (0, 2) or len(set(values)) > 1 or (values and values[0] < self.last):
            raise Wrong(f"{self.name}: {self.last} was acknowledged, found {found}")
        return values

    def check(self) -> None:
        if not self.look() and self.last:
            raise Wrong(f"{self.name}: {self.last} was acknowledged, nothing is there")


class Shared(Worker):
    """Counts up a number that others count up too: read, then put with the version that was read."""

    def __init__(self, client: Client, root: str, timeout: float = 20.0) -> None:
        super().__init__(client, f"shared {root} by {client.tega_id}")
        self.path = (root, "n")
        self.timeout = timeout
        self.done = 0
        self.doubtful = 0

    def step(self) -> bool:
        try:
            try:
                node = self.client.node(self.path, timeout=self.timeout)
                n, version = node.value + 1, node.version
            except errors.NotFound:
                n, version = 1, -1
            if version != n - 2:
                raise Wrong(f"{self.name}: n={n - 1} at version {version}")
        except errors.TegaError as error:
            unknown(error)
            return False
        try:
            self.client.put(self.path, n, version=version if n > 1 else "absent", timeout=self.timeout)
        except errors.Collision:
            return True
        except errors.TegaError as error:
            self.doubtful += unknown(error)
            return False
        self.done += 1
        return True


def check_shared(workers: list[Shared]) -> None:
    """What several count up is the count of what they were told was done."""
    done, doubtful = sum(each.done for each in workers), sum(each.doubtful for each in workers)
    if not done:
        return
    node = workers[0].client.node(workers[0].path)
    if not done <= node.value <= done + doubtful or node.version != node.value - 1:
        raise Wrong(
            f"shared: {done} counted, {doubtful} unknown, {node.value} is there, version {node.version}"
        )


class Caller(Worker):
    """Calls a handler that returns its argument."""

    def __init__(self, client: Client, path: str, timeout: float = 5.0) -> None:
        super().__init__(client, f"caller {path} by {client.tega_id}")
        self.path = path
        self.timeout = timeout
        self.n = 0

    def step(self) -> bool:
        self.n += 1
        try:
            result = self.client.call(self.path, self.n, timeout=self.timeout)
        except (
            errors.NoHandler,
            errors.HandlerGone,
            errors.Timeout,
            errors.Disconnected,
            errors.Offline,
        ):
            return False
        if result != self.n:
            raise Wrong(f"{self.name}: {self.n} went in, {result} came out")
        return True

    def check(self) -> None:
        self.client.call(self.path, 0, timeout=self.timeout)


class Watcher:
    """Follows a root that is counted up, and sees that no change is missed, doubled, or out of order."""

    def __init__(self, client: Client, root: str) -> None:
        self.client = client
        self.root = root
        self.version: int | None = None
        self.value = 0
        self.count = 0
        self.wrong: list[str] = []
        client.subscribe(root, self._changed)

    def _changed(self, change: Change) -> None:
        self.count += 1
        value = change.new["n"] if isinstance(change.new, dict) else change.new
        fits = change.reset or self.version is None or change.previous_version == self.version
        newer = self.version is None or change.version > self.version
        if not fits or not newer or value < self.value:
            self.wrong.append(f"{self.root}: at {self.version}={self.value} came {change}")
        self.version, self.value = change.version, value

    def check(self) -> None:
        """The last change that it heard of is the last one there was."""
        if self.wrong:
            raise Wrong(f"subscriber {self.client.tega_id}: {self.wrong[:3]}")
        node = self.client.node((self.root, "n"))
        if self.count and (self.version, self.value) != (node.version, node.value):
            raise errors.Timeout(f"{self.root}: heard {self.version}={self.value}, is {node}")


class Load:
    """Several workers at once."""

    def __init__(self, workers: list[Worker]) -> None:
        self.workers = workers
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self._errors: list[BaseException] = []

    def start(self) -> None:
        """Begin, or begin again."""
        self._stop.clear()
        self._threads = [
            threading.Thread(target=self._run, args=(worker,), name=worker.name) for worker in self.workers
        ]
        for thread in self._threads:
            thread.start()

    def _run(self, worker: Worker) -> None:
        try:
            while not self._stop.is_set():
                if worker.step():
                    worker.acknowledged += 1
                else:
                    worker.failures += 1
                    self._stop.wait(PAUSE)
        except Exception as error:  # noqa: BLE001  `stop` tells it, in the test's own thread
            self._errors.append(error)

    def stop(self) -> None:
        """End, and raise what went wrong."""
        self._stop.set()
        for thread in self._threads:
            thread.join(60)
        stuck = [thread.name for thread in self._threads if thread.is_alive()]
        self._threads = []
        if self._errors:
            raise self._errors[0]
        assert not stuck, f"still waiting for an answer: {stuck}"

    def progress(self, count: int, which: Callable[[Worker], bool] = lambda _: True) -> None:
        """Wait until `count` more things were acknowledged, to the workers that `which` names."""
        chosen = [worker for worker in self.workers if which(worker)]
        goal = sum(worker.acknowledged for worker in chosen) + count

        def reached() -> bool:
            if self._errors:
                raise self._errors[0]
            return sum(worker.acknowledged for worker in chosen) >= goal

        until(reached, f"{count} more of {[worker.name for worker in chosen]}", patience=40)

    def check(self) -> None:
        """Everything that was acknowledged is there, once."""
        for worker in self.workers:
            until(lambda worker=worker: worker.check() or True, worker.name)
        shared: dict[Any, list[Shared]] = {}
        for worker in self.workers:
            if isinstance(worker, Shared):
                shared.setdefault(worker.path, []).append(worker)
        for group in shared.values():
            check_shared(group)
