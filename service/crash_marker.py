"""What runs just now, on a file that outlives this process: if a model ends it, its successor knows which one.

Threads do not survive a native abort. The supervisor starts the process again, and the variants under which it ended
begin in quarantine there, for longer each time that it happens soon after the last. Whoever ran may have been a
bystander (another batch, a kill from outside); whoever was being probed hardly was, nor who was being loaded while
nothing else went on. One by which two processes ended so is not loaded again, for as long as there is the file
(`service.crash_counts`). It belongs to one supervisor, and is removed when the gateway ends as it should.
"""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import mmap
import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from enum import IntEnum
from pathlib import Path
from threading import Lock
from time import monotonic
from typing import NamedTuple

import psutil

from service.crash_counts import CrashCounts, Key

logger = logging.getLogger("pareto.quarantine")

RECORD_BYTES = 256
COUNTS_BYTES = 16 * 1024
"""For the crashes of each variant so far."""
MOST_KNOWN = 4096
"""Records that are kept ready to be written: revisions come and go."""
PROBES = LOADS = 8
"""Probes, and loads, that may go on at a time; of more, the last ones are not noted."""


class Doing(IntEnum):
    """What a process did with a variant, the more, the likelier its end was that one's doing."""

    RUNNING = 0
    PROBING = 1
    LOADING = 2


class Crashed(NamedTuple):
    """A variant that ran when a process ended, what that is blamed on, and how often that has been lately."""

    family: str
    revision: str
    variant: str
    times: int
    doing: Doing = Doing.RUNNING

    @property
    def is_certain(self) -> bool:
        """Whether nobody else is likely to have ended the process: it ran away from requests."""
        return self.doing is not Doing.RUNNING


class CrashMarker:
    """The file of one supervisor. Raises `OSError` where it cannot be had.

    `crashed` are the variants under which the process before this one ended, the likeliest culprits first. `clock` is
    steady and the same for all processes. A note takes less than a microsecond.
    """

    def __init__(self, path: Path, slots: int, *, clock: Callable[[], float] = monotonic) -> None:
        self._path = path
        # Taken and given back from several threads: one operation of a list is never seen half done.
        probes = slots + PROBES
        self._free = {Doing.PROBING: [*range(slots, probes)], Doing.LOADING: [*range(probes, probes + LOADS)]}
        self._records: dict[_Noted, bytes] = {}
        size = COUNTS_BYTES + (probes + LOADS) * RECORD_BYTES
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            found = os.fstat(file)
            if found.st_uid != os.getuid() or not stat.S_ISREG(found.st_mode):
                raise OSError(0, "belongs to somebody else", str(path))
            missing = size - found.st_size
            # Written, not only promised: a page that finds no room on the disk ends the process that notes in it.
            if missing > 0 and os.pwrite(file, bytes(missing), found.st_size) < missing:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
            self._pages = mmap.mmap(file, max(size, found.st_size))
        finally:
            os.close(file)
        self._counts = CrashCounts(self._pages[:COUNTS_BYTES])
        self._counting = Lock()
        self.crashed = self._count(clock())

    @classmethod
    def of_supervisor(cls, slots: int) -> CrashMarker | None:
        """That of the process that started this one; `None` where there can be none, which is logged.

        Where one process starts several gateways, as a node of Ray does, the first has it, and no other one.
        """
        try:
            parent = psutil.Process(os.getppid())
            path = Path(tempfile.gettempdir()) / f"pareto-running-{parent.pid}-{int(parent.create_time() * 1000)}"
            # Open, and so locked, until this process ends, whatever ends it.
            held = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return cls(path, slots)
            except BaseException:
                os.close(held)
                raise
        except (OSError, psutil.Error) as error:
            logger.warning("a variant that ends this process is not known to the next one: %s", error)
            return None

    def begin(self, slot: int, family: str, revision: str, variant: str) -> None:
        """A batch of that variant begins in a slot."""
        self._note(slot, (family, revision, variant, Doing.RUNNING))

    def end(self, slot: int) -> None:
        """It has ended, one way or the other."""
        self._pages[COUNTS_BYTES + slot * RECORD_BYTES] = 0

    def probing(self, family: str, revision: str, variant: str) -> AbstractContextManager[None]:
        """A variant is tried away from requests."""
        return self._noted((family, revision, variant), Doing.PROBING)

    def loading(self, family: str, revision: str, variant: str) -> AbstractContextManager[None]:
        """A variant is opened, tried for the first time, or measured; `loaded` says that all of this went well."""
        return self._noted((family, revision, variant), Doing.LOADING)

    def loaded(self, family: str, revision: str, variant: str) -> None:
        """A variant was loaded, wholly: earlier ends while it was are not held against it."""
        with self._counting:
            if self._counts.loaded((family, revision, variant)):
                self._write_counts()

    def left_out(self, family: str, revision: str, variant: str) -> int:
        """How many processes ended by it while it was loaded; 0 where it may be loaded."""
        with self._counting:
            return self._counts.left_out((family, revision, variant))

    def is_doubted(self, family: str, revision: str, variant: str) -> bool:
        """Whether a process ended while it was loaded beside others: who it was shows where it is loaded alone."""
        with self._counting:
            return self._counts.is_doubted((family, revision, variant))

    @contextmanager
    def _noted(self, key: Key, doing: Doing) -> Iterator[None]:
        free, place = self._free[doing], None
        with suppress(IndexError):
            place = free.pop()
        if place is None:
            yield
            return
        self._note(place, (*key, doing))
        try:
            yield
        finally:
            self.end(place)
            free.append(place)

    def remove(self) -> None:
        """The gateway ends as it should."""
        with suppress(OSError):
            self._path.unlink()

    def _note(self, place: int, noted: _Noted) -> None:
        record = self._records.get(noted)
        if record is None:
            if len(self._records) >= MOST_KNOWN:
                self._records.clear()
            record = json.dumps(noted).encode().ljust(RECORD_BYTES, b"\0")[:RECORD_BYTES]
            self._records[noted] = record
        at = COUNTS_BYTES + place * RECORD_BYTES
        self._pages[at : at + RECORD_BYTES] = record

    def _count(self, now: float) -> tuple[Crashed, ...]:
        """Read what was left behind, add it to the counts, and begin anew."""
        noted: set[_Noted] = set()
        for at in range(COUNTS_BYTES, len(self._pages) - RECORD_BYTES + 1, RECORD_BYTES):
            found = _noted(self._pages[at : at + RECORD_BYTES])
            self._pages[at] = 0
            if found is not None:
                noted.add(found)
        crashed: dict[Key, Doing] = {}
        for family, revision, variant, doing in sorted(noted):
            # While anything else went on, a load may be as much of a bystander as a batch.
            blamed = Doing.RUNNING if doing is Doing.LOADING and len(noted) > 1 else doing
            key = family, revision, variant
            crashed[key] = max(blamed, crashed.get(key, blamed))
        loads = {(family, revision, variant) for family, revision, variant, doing in noted if doing is Doing.LOADING}
        times = {
            key: self._counts.ended_loading(key)
            if doing is Doing.LOADING
            else self._counts.ended_running(key, now, doubted=key in loads)
            for key, doing in crashed.items()
        }
        self._write_counts()
        blames = [Crashed(*key, times[key], doing) for key, doing in crashed.items()]
        return tuple(sorted(blames, key=lambda crash: (not crash.is_certain, -crash.times, crash)))

    def _write_counts(self) -> None:
        self._pages[:COUNTS_BYTES] = self._counts.said(COUNTS_BYTES).ljust(COUNTS_BYTES, b"\0")


_Noted = tuple[str, str, str, Doing]
"""Family, revision and variant; what was done with it."""


def _noted(record: bytes) -> _Noted | None:
    """What a record says; `None` for one that says nothing, or was being written when the process ended."""
    if not record[0]:
        return None
    try:
        family, revision, variant, doing = json.loads(record.rstrip(b"\0"))
        return str(family), str(revision), str(variant), Doing(doing)
    except (ValueError, TypeError):
        return None
