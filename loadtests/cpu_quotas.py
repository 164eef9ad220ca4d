"""Shares of a processor, as container platforms give them: control groups with a quota of the CPU's time. Linux, root.

A replica with a quota is a smaller machine of its own, whatever runs beside it, as long as all quotas together leave
something over for the rest.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from random import SystemRandom

ROOT = Path("/sys/fs/cgroup")
PERIOD_S = 0.01
"""A group that has had its share waits for the next period: short against what is asked of it (kubelet: 0.1 s)."""
END_LIMIT_S = 10.0
STEP_S = 0.01


class QuotaError(Exception):
    """Quotas cannot be had here. The message is one line that says why."""


@contextmanager
def quotas(count: int, cores: float) -> Iterator[list[tuple[str, ...]]]:
    """So many groups of `cores` processors (0.1 or more) each, until the block ends; what still runs in them is killed.

    Yields for each the command that starts its arguments in it. Raises `QuotaError` where that needs another system,
    another user or other rights.
    """
    parent = _controller()
    name = f"pg{SystemRandom().getrandbits(24):06x}"
    groups = [parent / f"{name}-{index}" for index in range(count)]
    try:
        for group in groups:
            try:
                group.mkdir()
                _limit(group, round(cores * PERIOD_S * 1e6), round(PERIOD_S * 1e6))
            except OSError as error:
                raise QuotaError(f"{group}: {error.strerror}") from error
        yield [("sh", "-c", f'echo $$ > {group / "cgroup.procs"} && exec "$@"', "sh") for group in groups]
    finally:
        _remove(groups)


def _remove(groups: Sequence[Path]) -> None:
    """Remove them all; one that something runs in, or is still ending in, cannot be."""
    until_s = time.monotonic() + END_LIMIT_S
    for group in groups:
        while group.exists():
            try:
                group.rmdir()
            except OSError as error:
                if time.monotonic() > until_s:
                    sys.stderr.write(f"{group}: stays behind: {error.strerror}\n")
                    break
                _kill_members(group)
                time.sleep(STEP_S)


def _kill_members(group: Path) -> None:
    with suppress(OSError):
        members = [int(line) for line in (group / "cgroup.procs").read_text().split()]
        # 0 stands for a process that cannot be seen from here; to signal it would be to signal this one and its like.
        for member in filter(None, members):
            with suppress(ProcessLookupError):
                os.kill(member, signal.SIGKILL)


def _controller() -> Path:
    """Where groups with a quota are made: the `cpu` hierarchy of version 1, or the one of version 2."""
    if (ROOT / "cpu" / "cpu.cfs_quota_us").exists():
        return ROOT / "cpu"
    try:
        if "cpu" in (ROOT / "cgroup.subtree_control").read_text().split():
            return ROOT
    except OSError:
        pass
    raise QuotaError(f"{ROOT}: no control groups for processors")


def _limit(group: Path, quota_us: int, period_us: int) -> None:
    if (group / "cpu.max").exists():
        (group / "cpu.max").write_text(f"{quota_us} {period_us}")
        return
    (group / "cpu.cfs_period_us").write_text(str(period_us))
    (group / "cpu.cfs_quota_us").write_text(str(quota_us))
