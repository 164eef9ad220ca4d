"""Resident memory of this process: the most that it came to, and handing back what is free."""

from __future__ import annotations

import ctypes
import resource
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

import psutil

Result = TypeVar("Result")

_RESET = Path("/proc/self/clear_refs")


def give_back() -> None:
    """Hand freed memory back to the system. glibc keeps the pages of freed blocks; elsewhere nothing happens."""
    trim = _trim()
    if trim is not None:
        trim(0)


def forget_the_peak() -> bool:
    """Begin the process's largest resident memory anew; whether Linux let it."""
    try:
        # See proc_pid_clear_refs(5).
        _RESET.write_text("5")
    except OSError:
        return False
    return True


def peak_bytes() -> int:
    """Return the largest resident memory of this process; what `getrusage` says may be its parent's."""
    known = peak_bytes_of("self")
    if known is not None:
        return known
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest if sys.platform == "darwin" else largest * 1024


def peak_bytes_of(process: int | str) -> int | None:
    """Return the largest resident memory of a process by its number, as Linux noted it; None where it does not."""
    with suppress(OSError):
        for line in Path(f"/proc/{process}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return None


def taken_by(work: Callable[[], object]) -> int | None:
    """Bytes of resident memory that some work takes at the most while it runs; None where the machine does not tell.

    What the process has kept of earlier work is handed back before, for the work would use it and seem to take nothing.
    """
    _, before_bytes, most_bytes = _watched(work)
    return None if most_bytes is None else max(0, most_bytes - before_bytes)


def taken_beyond(work: Callable[[], Result]) -> tuple[Result, int | None]:
    """What some work returns, and the most bytes that it takes beside what stays of it; None as of `taken_by`."""
    result, before_bytes, most_bytes = _watched(work)
    give_back()
    kept_bytes = max(before_bytes, _resident_bytes())
    return result, None if most_bytes is None else max(0, most_bytes - kept_bytes)


def kept_by(work: Callable[[], Result]) -> int:
    """Bytes of resident memory that what some work returns keeps, once all that is free has been handed back."""
    give_back()
    before_bytes = _resident_bytes()
    result = work()
    give_back()
    kept_bytes = max(0, _resident_bytes() - before_bytes)
    del result
    return kept_bytes


def _watched(work: Callable[[], Result]) -> tuple[Result, int, int | None]:
    """What some work returns, what was resident before it, and the most that was while it ran; None where unknown."""
    give_back()
    before_bytes = _resident_bytes()
    is_known = forget_the_peak()
    result = work()
    return result, before_bytes, peak_bytes() if is_known else None


def _resident_bytes() -> int:
    return int(psutil.Process().memory_info().rss)


@lru_cache(maxsize=1)
def _trim() -> ctypes._NamedFuncPointer | None:
    try:
        # Any heap top is given back, and with it whole pages in between. The interpreter lock is released meanwhile.
        return ctypes.CDLL("libc.so.6").malloc_trim
    except (OSError, AttributeError):
        return None
