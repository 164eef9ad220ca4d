"""What a latency profile depends on besides the model: the machine, its limits and the runtime.

Two machines of one fingerprint are expected to take the same time for the same batch.
"""

from __future__ import annotations

import hashlib
import math
import os
import platform
from dataclasses import dataclass
from pathlib import Path

import onnxruntime

_TELLING_FLAGS = frozenset(
    {"avx", "avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx_vnni", "amx_int8", "amx_bf16", "fma"}
    | {"asimd", "asimddp", "i8mm", "bf16", "sve", "sve2"}
)
"""The instruction sets that choose onnxruntime's kernels, as Linux calls them on x86 and ARM."""

_SESSIONS = ", normalizations unfused"
"""How sessions are opened, where that changes what batches take: profiles of before are measured anew."""


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """`digest` is 12 hexadecimal digits and names profile files; `description` is for people."""

    digest: str
    description: str


def machine_fingerprint(threads: int = 1) -> Fingerprint:
    """Return the fingerprint of this machine for sessions of that many threads."""
    model, flags = _processor()
    description = "; ".join(
        [
            model,
            " ".join(sorted(flags & _TELLING_FLAGS)) or "no vector flags known",
            f"{available_cores():g} cores",
            f"onnxruntime {onnxruntime.__version__}{_SESSIONS}",
            f"{threads} thread{'' if threads == 1 else 's'}",
        ]
    )
    return Fingerprint(hashlib.sha256(description.encode()).hexdigest()[:12], description)


def available_cores() -> float:
    """Return how many cores this process may use: its affinity, cut to the quota of its control group."""
    cores = float(len(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else float(os.cpu_count() or 1)
    return min(cores, _quota_cores(Path("/sys/fs/cgroup")))


def _quota_cores(control_group: Path) -> float:
    """Return the quota of version 2 or 1 of control groups in cores, infinite where there is none."""
    try:
        quota, period = (control_group / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota = (control_group / "cpu" / "cpu.cfs_quota_us").read_text().strip()
            period = (control_group / "cpu" / "cpu.cfs_period_us").read_text().strip()
        except OSError:
            return math.inf
    try:
        return int(quota) / int(period) if int(quota) > 0 else math.inf
    except (ValueError, ZeroDivisionError):
        return math.inf


def _processor() -> tuple[str, frozenset[str]]:
    """Return the processor's model and its instruction set flags as Linux tells them."""
    fields: dict[str, str] = {}
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            key, _, value = line.partition(":")
            fields.setdefault(key.strip(), value.strip())
    except OSError:
        pass
    model = fields.get("model name") or platform.processor() or platform.machine() or "unknown processor"
    return model, frozenset((fields.get("flags") or fields.get("Features") or "").split())
