"""How much memory this process may use, does use, and how it gives some back."""

from __future__ import annotations

import ctypes
import logging
import math
import os
import re
from functools import lru_cache
from pathlib import Path

logger = logging.getLogger("pareto.memory")

_UNITS = {"": 1, "k": 1000, "m": 1000**2, "g": 1000**3, "ki": 1024, "mi": 1024**2, "gi": 1024**3}
_AMOUNT = re.compile(r"(\d+(?:\.\d+)?)\s*(%|(?:[kmg]i?)?b?)", re.IGNORECASE)
_CONTROL_GROUPS = Path("/sys/fs/cgroup")
_STATM = Path("/proc/self/statm")


def parse_budget(text: str) -> str:
    """Return the text of a memory budget. Raises `ValueError` where it is neither bytes nor a share."""
    match = _AMOUNT.fullmatch(text.strip())
    if match is None or float(match[1]) <= 0 or (match[2] == "%" and float(match[1]) > 100):
        raise ValueError(
            f"expected bytes with a unit (`512MiB`, `2GB`) or a share of the machine's limit (`60%`), got {text!r}"
        )
    return text.strip()


def budget_bytes(text: str) -> int:
    """The bytes of a budget that `parse_budget` takes; a share is one of `limit_bytes`."""
    match = _AMOUNT.fullmatch(text)
    assert match is not None, "settings are validated"
    if match[2] == "%":
        return int(limit_bytes() * float(match[1]) / 100)
    return int(float(match[1]) * _UNITS[match[2].lower().removesuffix("b")])


def limit_bytes(control_groups: Path = _CONTROL_GROUPS) -> int:
    """What the container may use, by version 2 or 1 of control groups, else the machine's memory."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limits = [machine]
    for file in ("memory.max", "memory/memory.limit_in_bytes"):
        try:
            said = (control_groups / file).read_text().strip()
            limits.append(machine if said == "max" else int(said))
        except (OSError, ValueError):
            continue
    return min(limits)


def resident_bytes() -> int:
    """Resident memory of this process; 0 where the machine does not tell."""
    try:
        return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def give_back() -> None:
    """Hand freed memory back to the system. glibc keeps the pages of freed blocks; elsewhere nothing happens."""
    trim = _trim()
    if trim is not None:
        trim(0)


@lru_cache(maxsize=1)
def _trim() -> ctypes._NamedFuncPointer | None:
    try:
        # Any heap top is given back, and with it whole pages in between. The interpreter lock is released meanwhile.
        return ctypes.CDLL("libc.so.6").malloc_trim
    except (OSError, AttributeError):
        return None


class Overhead:
    """What the process uses beside the models, smoothed: requests make it move by some megabytes all the time.

    It follows a rise at once and a fall slowly, so that room that was there for a moment is not loaded into.
    """

    FALL = 0.1

    def __init__(self) -> None:
        self.bytes = -math.inf

    def observe(self, resident: int, models: int) -> float:
        """Take note of resident memory and what models are thought to take of it; returns the overhead in bytes."""
        now = float(max(0, resident - models))
        self.bytes = now if now >= self.bytes else self.bytes - self.FALL * (self.bytes - now)
        return self.bytes
