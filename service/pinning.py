"""Which processor cores the slots run on, and which are left to the event loop."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager


class PinningError(Exception):
    """The slots cannot run on the cores that are asked for. The message is one line."""


def core_of_slots(cores: Sequence[int], slots: int) -> list[int | None]:
    """The core of each slot: those that are named in turn, None for all where none is.

    Raises `PinningError` where this process may not use one of them, or has none besides for the event loop.
    """
    if not cores:
        return [None] * slots
    if not hasattr(os, "sched_setaffinity"):
        raise PinningError("slot_cores: this system does not pin threads to cores; leave it unset")
    usable = os.sched_getaffinity(0)
    if beyond := set(cores) - usable:
        raise PinningError(f"slot_cores: core {min(beyond)} is not one of the cores this process may use: {usable}")
    if not usable - set(cores):
        raise PinningError(f"slot_cores: leaves no core of {usable} for the event loop")
    return [cores[index % len(cores)] for index in range(slots)]


def check_cores(device: str, cores: Collection[int]) -> None:
    """Raises `PinningError` where this process may not use one of the cores of a device."""
    if cores and not hasattr(os, "sched_setaffinity"):
        raise PinningError(f"devices.{device}.cores: this system does not pin threads to cores; leave it unset")
    if cores and (beyond := set(cores) - os.sched_getaffinity(0)):
        usable = os.sched_getaffinity(0)
        raise PinningError(f"devices.{device}.cores: core {min(beyond)} is not one this process may use: {usable}")


@contextmanager
def kept_to(cores: Collection[int]) -> Iterator[None]:
    """This thread, and those that are started in the block, keep to some cores, if there are any."""
    if not cores:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def leave_to_slots(cores: Sequence[int]) -> None:
    """Keep this thread, and those that it will start, off the slots' cores."""
    if cores:
        os.sched_setaffinity(0, os.sched_getaffinity(0) - set(cores))
