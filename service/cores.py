"""How many cores this process may use: the least of affinity, cgroup quota and what the machine has."""

from __future__ import annotations

import math
import os
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")


def usable_cores(cgroup: Path = _CGROUP) -> int:
    """Whole cores for this process, at least 1; a quota of 1.5 cores counts as 1.

    `cgroup` is where the control groups are mounted, of versions 2 (`cpu.max`) and 1 (`cpu.cfs_quota_us`).
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cpu_quota(cgroup)
    return max(1, min(allowed, math.floor(quota))) if quota is not None else allowed


def cpu_quota(cgroup: Path = _CGROUP) -> float | None:
    """Cores that the control group grants, None where it sets no limit or cannot be read."""
    try:
        version_2 = cgroup / "cpu.max"
        if version_2.exists():
            quota, period = version_2.read_text().split()
        else:
            quota = (cgroup / "cpu" / "cpu.cfs_quota_us").read_text().strip()
            period = (cgroup / "cpu" / "cpu.cfs_period_us").read_text().strip()
        cores = math.inf if quota == "max" else float(quota) / float(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None
    return cores if 0 < cores < math.inf else None
