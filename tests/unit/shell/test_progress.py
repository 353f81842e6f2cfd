"""The line that says how far long work is."""

from __future__ import annotations

import io

from tega_zmq.shell.progress import Progress


class Screen(io.StringIO):
    def __init__(self, terminal: bool) -> None:
        super().__init__()
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal


def test_it_is_drawn_over_and_goes_away() -> None:
    now = [0.0]
    screen = Screen(terminal=True)
    progress = Progress(screen, lambda: now[0])
    progress("1 of 3")
    progress("2 of 3")  # too soon to be seen
    now[0] = 1.0
    progress("3 of 3 \x1b[31m" + "x" * 200)
    progress("")
    progress("")
    shown = screen.getvalue()
    assert shown.startswith("\r\x1b[K1 of 3\r\x1b[K3 of 3 \\x1b[31mxx")
    assert shown.endswith("x\r\x1b[K")
    assert shown.count("\r\x1b[K") == 3
    assert "2 of 3" not in shown
    assert len(shown) < 120


def test_nothing_is_drawn_where_nobody_looks() -> None:
    screen = Screen(terminal=False)
    progress = Progress(screen)
    progress("1 of 3")
    progress("")
    assert screen.getvalue() == ""
