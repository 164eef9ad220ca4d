"""How much memory this process may use, and does use."""

from __future__ import annotations

import logging
import math
import os
import re
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

logger = logging.getLogger("pareto.memory")

_MOST_NAMED = 3
"""A line of a log names no more families."""

_UNITS = {"": 1, "k": 1000, "m": 1000**2, "g": 1000**3, "ki": 1024, "mi": 1024**2, "gi": 1024**3}
_LEAST_BYTES = 1_000_000
"""A smaller budget is one without its unit."""
_AMOUNT = re.compile(r"(\d+(?:\.\d+)?)\s*(%|(?:[kmg]i?)?b?)", re.IGNORECASE)
_SIZE = re.compile(r"^(\w+):[ \t]+(\d+) kB$", re.MULTILINE)
_CONTROL_GROUPS = Path("/sys/fs/cgroup")
_PROCESSES = Path("/proc")
_STATM = _PROCESSES / "self" / "statm"


def parse_budget(text: str) -> str:
    """Return the text of a memory budget. Raises `ValueError` where it is neither bytes nor a share."""
    match = _AMOUNT.fullmatch(text.strip())
    if match is None or float(match[1]) <= 0 or (match[2] == "%" and float(match[1]) > 100):
        raise ValueError(
            f"expected bytes with a unit (`512MiB`, `2GB`) or a share of the container's limit (`60%`), got {text!r}"
        )
    if match[2] != "%" and budget_bytes(text.strip()) < _LEAST_BYTES:
        raise ValueError(f"expected a megabyte at least, with a unit (`512MiB`, `2GB`), got {text!r}")
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


def first_of(families: Mapping[str, int]) -> str:
    """The first few families, with the bytes that each takes, for a line of a log."""
    return named([f"{name} (takes {max(0.1, size / 1e6):.1f} MB)" for name, size in families.items()])


def named(names: Sequence[str]) -> str:
    """The first few of some names, for a line of a log."""
    return f"{', '.join(names[:_MOST_NAMED])}{', ...' if len(names) > _MOST_NAMED else ''}"


def resident_bytes() -> int:
    """Resident memory of this process; 0 where the machine does not tell."""
    try:
        return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def resident_together(processes: Iterable[int], folder: Path = _PROCESSES) -> int:
    """Resident memory of some processes, in which what they share counts once; nothing of one that has ended.

    Each counts with its part of what it shares (Pss). Pages of files, as libraries are, may be shared with processes
    beside these, which come and go: they count no less than those of the process that has most of them. Where the
    machine tells no parts, all that is resident counts, for each.
    """
    parts = [_parts(folder / str(process)) for process in processes]
    files = max(sum(one.of_files for one in parts), max((one.files for one in parts), default=0))
    return sum(one.own for one in parts) + files


class _Parts(NamedTuple):
    """Bytes of a process: its part of memory, its part of pages of files, and all pages of files that it has."""

    own: int
    of_files: int = 0
    files: int = 0


def _parts(process: Path) -> _Parts:
    said = _kilobytes(process / "smaps_rollup")
    if "Pss" in said:
        of_files = 1024 * said.get("Pss_File", 0)
        return _Parts(1024 * said["Pss"] - of_files, of_files, 1024 * _kilobytes(process / "status").get("RssFile", 0))
    try:
        return _Parts(int((process / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE"))
    except OSError:
        return _Parts(0)


def _kilobytes(path: Path) -> dict[str, int]:
    """What a file of the kernel's says in kB, by name; nothing where there is none, as of a process that has ended."""
    try:
        return {name: int(size) for name, size in _SIZE.findall(path.read_text())}
    except OSError:
        return {}


PASSES_S = 3.0
"""What the process takes for longer than that at a stretch does not come and go: it has grown."""


class Overhead:
    """What the process uses beside the models, smoothed: requests make it move by some megabytes all the time.

    `bytes` follows a rise at once and a fall slowly, so that room that was there for a moment is not loaded into;
    `least_bytes` the other way round. `passing_bytes` is what of it comes and goes: more than the least of the last
    seconds.
    """

    FALL, RISE = 0.1, 0.02

    def __init__(self) -> None:
        self.bytes = -math.inf
        self.least_bytes = math.inf
        self._lately: deque[tuple[float, float]] = deque()
        """When it was measured lately, and bytes: each less than all later ones, so that the first is the least."""

    @property
    def passing_bytes(self) -> float:
        """What of it comes and goes."""
        return self.bytes - self._lately[0][1] if self._lately else 0.0

    def observe(self, resident: int, models: int, now_s: float) -> float:
        """Take note of resident memory and what models are thought to take of it; returns the overhead in bytes."""
        now = float(max(0, resident - models))
        self.bytes = now if now >= self.bytes else self.bytes - self.FALL * (self.bytes - now)
        least = self.least_bytes
        self.least_bytes = now if now <= least else least + self.RISE * (now - least)
        lately = self._lately
        while lately and lately[-1][1] >= now:
            lately.pop()
        lately.append((now_s, now))
        while lately[0][0] < now_s - PASSES_S:
            lately.popleft()
        return self.bytes
