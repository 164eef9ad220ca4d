"""Why an executor has ended: by what its model did, or because memory ended."""

from __future__ import annotations

import signal
from pathlib import Path

from router.contract import Reason
from service.processes.host import NO_TEMPLATE, TEMPLATE_ENDED, End

COUNTED = (Path("/sys/fs/cgroup/memory.events"), Path("/proc/vmstat"))
"""Where the kernel counts how often it ended a process for want of memory: in this container, or else anywhere."""


class Deaths:
    """Tells the kernel's out-of-memory killer from other kills, by its count."""

    def __init__(self, counted: tuple[Path, ...] = COUNTED) -> None:
        self._counted = counted
        self._kills = self._count()

    def reason(self, end: End) -> Reason:
        """What the batch failed by that the executor ran."""
        if end.said in (TEMPLATE_ENDED, NO_TEMPLATE):
            return Reason.EXECUTOR_LOST
        if end.signal == signal.SIGKILL:
            before, self._kills = self._kills, self._count()
            if self._kills > before:
                return Reason.OUT_OF_MEMORY
        return Reason.CRASHED

    def _count(self) -> int:
        for file in self._counted:
            try:
                lines = file.read_text().splitlines()
            except OSError:
                continue
            for line in lines:
                name, _, count = line.partition(" ")
                if name == "oom_kill" and count.strip().isdigit():
                    return int(count)
        return 0
