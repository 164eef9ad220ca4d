"""The server as a child process: what is done to it, and what of its log is told."""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import Literal

import pytest

import service.supervision
from loadtests.servers import free_port
from service.log_words import LEAVES, NO_ROOM
from service.settings import Settings
from service.supervision import ServerDiedError, SupervisedServer

Level = Literal["info", "warning", "error"]


def saying(monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    """Have servers be this Python program."""
    monkeypatch.setattr(service.supervision, "server_command", lambda _: [sys.executable, "-c", program])


def test_who_has_been_waited_for_is_sent_no_signal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C after a server died before it was ready: a stranger may have its number, and would stay stopped."""
    saying(monkeypatch, "")
    sent: list[int] = []
    with SupervisedServer(Settings(port=free_port())) as server:
        with pytest.raises(ServerDiedError, match="before it was ready"):
            server.wait_until_ready()
        monkeypatch.setattr(os, "kill", lambda _, number: sent.append(number))
        signal.raise_signal(signal.SIGINT)
    assert [] == sent


@pytest.mark.parametrize("level", ["info", "warning", "error"])
@pytest.mark.parametrize("lack", [f"{LEAVES}4.0 MB for models: {NO_ROOM} of 1 family: a (takes 9.0 MB)", ""])
def test_room_is_told_without_waiting_for_what_is_not_logged(
    monkeypatch: pytest.MonkeyPatch, level: Level, lack: str
) -> None:
    """Where all fits, a log of warnings has no line of it; a lack is told at every level."""
    lines = [lack] if lack else []
    if level == "info":
        lines = [lack or f"{LEAVES}90.0 MB for models", "ready: a (0.1 s)"]
    saying(monkeypatch, f"print({os.linesep.join(lines)!r})")
    with SupervisedServer(Settings(port=free_port(), memory_budget="1GB", log_level=level)) as server:
        assert server._log.last_line() == (lines[-1] if lines else None)
        with monkeypatch.context() as meanwhile:
            meanwhile.setattr(time, "sleep", lambda _: pytest.fail("it waits"))
            assert (lack, {}) == (server.lack_of_room(), server.refused())
