"""The processes that a load test starts, ended with it, and what they said before they ended by themselves."""

from __future__ import annotations

import subprocess
import tempfile
import time
from pathlib import Path
from typing import IO

ROOT = Path(__file__).resolve().parents[2]
STOP_LIMIT_S = 20.0
_SILENT = "it left no message"


class Processes:
    """Processes with one log."""

    def __init__(self) -> None:
        self._running: list[subprocess.Popen[bytes]] = []
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed in `close`

    def start(self, command: tuple[str, ...], pass_fds: tuple[int, ...] = ()) -> None:
        """In a session of its own: a terminal's Ctrl-C is for the command alone."""
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            pass_fds=pass_fds,
            start_new_session=True,
        )
        self._running.append(process)

    def has_ended(self) -> bool:
        """Whether one of them has."""
        return any(process.poll() is not None for process in self._running)

    def last_words(self) -> str:
        """The last line of the log, once those that are about to end have ended."""
        for process in self._running:
            try:
                process.wait(1.0)
            except subprocess.TimeoutExpired:
                continue
        self._log.seek(0)
        lines = [line for line in self._log.read().decode(errors="replace").splitlines() if line.strip()]
        return lines[-1].strip() if lines else _SILENT

    def close(self) -> None:
        """Wait a while for their ends, then bring them about."""
        until_s = time.monotonic() + STOP_LIMIT_S
        for process in self._running:
            try:
                process.wait(max(0.0, until_s - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._log.close()
