"""Processes as the gateway starts and holds them: the template, and its own end of an executor."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from service.processes.tensors import Area

ROOT = Path(__file__).resolve().parents[2]
"""Where the package `service` lies."""


def template_process(control: socket.socket, left_to_slots: Collection[int]) -> subprocess.Popen[bytes]:
    """Start a template that is told over this socket what to do, and keeps off the cores that are `left_to_slots`.

    Raises `OSError` where there can be none.
    """
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    # Its numpy computes nothing that would be worth threads, which no copy of it would have.
    own = {"PYTHONPATH": path, "OPENBLAS_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore::DeprecationWarning"}
    process = subprocess.Popen(
        [sys.executable, "-m", "service.processes.template", str(control.fileno()), str(os.getpid())],
        stdin=subprocess.DEVNULL,
        env=os.environ | own,
        pass_fds=[control.fileno()],
    )
    if kept := os.sched_getaffinity(0) - frozenset(left_to_slots):
        # It has no threads yet. It may have ended already, which is told by its socket.
        with suppress(ProcessLookupError):
            os.sched_setaffinity(process.pid, kept)
    return process


class Link(NamedTuple):
    """The gateway's end of an executor: its number, its socket, and the areas that it shares."""

    executor: int
    connection: socket.socket
    areas: tuple[Area, Area]

    def close(self) -> None:
        """Let it end, if it lives, after what it runs."""
        self.connection.close()
        for area in self.areas:
            area.close()
