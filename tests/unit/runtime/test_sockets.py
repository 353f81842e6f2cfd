"""Where a node listens: what stands at the path of a local socket is looked at first."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

from tega_zmq.runtime.sockets import ListenError, publisher_socket, router_socket


class Node:
    """What listens in a test."""

    def __init__(self) -> None:
        self.context: zmq.Context[Any] = zmq.Context()
        self.opened: list[zmq.Socket[Any]] = []

    def listen(self, path: Path | str) -> zmq.Socket[Any]:
        router, monitor, _ = router_socket(self.context, [f"ipc://{path}"])
        self.opened += [router, monitor]
        return router

    def answers(self, router: zmq.Socket[Any], path: Path) -> bool:
        dealer = self.context.socket(zmq.DEALER)
        self.opened.append(dealer)
        dealer.connect(f"ipc://{path}")
        dealer.send(b"?")
        return bool(router.poll(5000)) and router.recv_multipart()[1:] == [b"?"]


@pytest.fixture
def node() -> Iterator[Node]:
    node = Node()
    yield node
    for opened in node.opened:
        opened.close(linger=0)
    node.context.destroy(linger=0)


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A short path, whatever the folder of the tests is called."""
    monkeypatch.chdir(tmp_path)
    return Path("sub/node.sock")


def left_behind(path: Path, backlog: int | None = 1) -> socket.socket:
    """A listening socket of a program; closed, it leaves its path as a killed program does."""
    path.parent.mkdir(exist_ok=True)
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(path))
    if backlog is not None:
        left.listen(backlog)
    return left


def test_folders_are_made(node: Node, path: Path) -> None:
    assert node.answers(node.listen(path), path)


def test_the_socket_of_a_program_that_is_gone_is_replaced(node: Node, path: Path) -> None:
    left_behind(path).close()
    assert path.is_socket()
    assert node.answers(node.listen(path), path)


@pytest.mark.parametrize("kind", ["file", "folder", "link to a file", "link to nothing"])
def test_what_is_no_socket_stays(node: Node, path: Path, kind: str) -> None:
    path.parent.mkdir()
    important = path.parent / "important"
    important.write_text("content")
    if kind == "file":
        important.rename(path)
        important = path
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("important" if kind == "link to a file" else "nowhere")
    with pytest.raises(ListenError, match=r"sub/node\.sock: "):
        node.listen(path)
    assert os.path.lexists(path)
    assert important.read_text() == "content"


def test_a_node_that_runs_keeps_its_socket(node: Node, path: Path) -> None:
    first = node.listen(path)
    with pytest.raises(ListenError, match=r"sub/node\.sock is in use: .* set another listen\.requests"):
        node.listen(path)
    with pytest.raises(ListenError, match="is in use"):
        publisher_socket(node.context, f"ipc://{path}")
    assert node.answers(first, path)


def test_one_that_is_too_busy_to_take_a_connection_keeps_its_socket(node: Node, path: Path) -> None:
    with left_behind(path, 0), socket.socket(socket.AF_UNIX) as waiting:
        waiting.connect(str(path))
        with pytest.raises(ListenError, match="is in use"):
            node.listen(path)
        assert path.is_socket()


def test_a_socket_of_another_kind_stays(node: Node, path: Path) -> None:
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(str(path))
        with pytest.raises(ListenError, match=r"sub/node\.sock: Protocol wrong type"):
            node.listen(path)


def test_a_folder_that_cannot_be_made_is_said(
    node: Node, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("file").write_text("")
    with pytest.raises(ListenError, match=r"ipc://file/x/a\.sock: file/x: Not a directory"):
        node.listen("file/x/a.sock")

    def refuse(path: str, **_: Any) -> None:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "makedirs", refuse)
    with pytest.raises(ListenError, match=r"sub/node\.sock: sub: Permission denied"):
        node.listen(path)


def test_an_abstract_socket_has_no_folder(node: Node, path: Path) -> None:
    name = f"@tega-test-{os.getpid()}/x"
    node.listen(name)
    assert not os.listdir()
    with pytest.raises(ListenError, match="is in use"):
        node.listen(name)
