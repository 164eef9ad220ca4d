"""What runs just now, on a file that outlives this process: if a model ends it, its successor knows which one.

Threads do not survive a native abort. The supervisor starts the process again, and the variants under which it ended
begin in quarantine there, for longer each time that it happens soon after the last. Whoever ran may have been a
bystander (another batch, a kill from outside); whoever was being probed or loaded hardly was. One that ended two
processes is not loaded by the next. The file belongs to one supervisor, and is removed when the gateway ends as it
should.
"""

from __future__ import annotations

import fcntl
import itertools
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
from time import monotonic
from typing import NamedTuple

import psutil

from router.quarantine import back_off, sound_s
from router.words import Reason

logger = logging.getLogger("pareto.quarantine")

RECORD_BYTES = 256
LEFT_OUT_AFTER = 2
"""Ends, of which the last one was while it was loaded: before that somebody else may have ended the process."""
COUNTS_BYTES = 16 * 1024
"""For the crashes of each variant so far; those that do not fit are forgotten, the oldest first."""
MOST_KNOWN = 4096
"""Records that are kept ready to be written: revisions come and go."""
PROBES = 8
"""Probes and loads that may go on at a time; of more, the last ones are noted."""


class Doing(IntEnum):
    """What a process did with a variant, the more, the likelier its end was that one's doing."""

    RUNNING = 0
    PROBING = 1
    LOADING = 2


class Crashed(NamedTuple):
    """A variant that ran when a process ended, and how often it has lately."""

    family: str
    revision: str
    variant: str
    times: int
    doing: Doing = Doing.RUNNING

    @property
    def is_certain(self) -> bool:
        """Whether nobody else is likely to have ended the process: it ran away from requests."""
        return self.doing is not Doing.RUNNING

    @property
    def is_left_out(self) -> bool:
        """Whether it is not to be loaded again."""
        return self.doing is Doing.LOADING and self.times >= LEFT_OUT_AFTER


class _Count(NamedTuple):
    """How often a variant ran at an end, and when that was last, on the machine's steady clock."""

    times: int
    last_s: float


class CrashMarker:
    """The file of one supervisor. Raises `OSError` where it cannot be had.

    `crashed` are the variants under which the process before this one ended, the likeliest culprits first. `clock` is
    steady and the same for all processes. A note takes less than a microsecond.
    """

    def __init__(self, path: Path, slots: int, *, clock: Callable[[], float] = monotonic) -> None:
        self._path = path
        self._slots = slots
        self._probe = itertools.count()
        self._records: dict[_Noted, bytes] = {}
        size = COUNTS_BYTES + (slots + PROBES) * RECORD_BYTES
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            found = os.fstat(file)
            if found.st_uid != os.getuid() or not stat.S_ISREG(found.st_mode):
                raise OSError(0, "belongs to somebody else", str(path))
            if found.st_size < size:
                os.ftruncate(file, size)
            self._pages = mmap.mmap(file, max(size, found.st_size))
        finally:
            os.close(file)
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
        return self._noted(family, revision, variant, Doing.PROBING)

    def loading(self, family: str, revision: str, variant: str) -> AbstractContextManager[None]:
        """A variant is opened and tried for the first time."""
        return self._noted(family, revision, variant, Doing.LOADING)

    def left_out(self, family: str, revision: str, variant: str) -> int:
        """How many processes ended by it, the last one while it was loaded; 0 where it may be loaded."""
        for crash in self.crashed:
            if crash[:3] == (family, revision, variant) and crash.is_left_out:
                return crash.times
        return 0

    @contextmanager
    def _noted(self, family: str, revision: str, variant: str, doing: Doing) -> Iterator[None]:
        at = self._slots + next(self._probe) % PROBES
        self._note(at, (family, revision, variant, doing))
        try:
            yield
        finally:
            self.end(at)

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
        counts = _counts(self._pages[:COUNTS_BYTES])
        crashed: dict[_Key, Doing] = {}
        for at in range(COUNTS_BYTES, len(self._pages) - RECORD_BYTES + 1, RECORD_BYTES):
            noted = _noted(self._pages[at : at + RECORD_BYTES])
            self._pages[at] = 0
            if noted is not None:
                *_, doing = noted
                crashed[noted[:3]] = max(doing, crashed.get(noted[:3], Doing.RUNNING))
        for key in sorted(crashed):
            # Last again: the oldest are forgotten first.
            counts[key] = _Count(_before(counts.pop(key, None), now) + 1, now)
        said = b""
        while len(said := json.dumps([[*key, *count] for key, count in counts.items()]).encode()) > COUNTS_BYTES:
            del counts[next(iter(counts))]
        self._pages[:COUNTS_BYTES] = said.ljust(COUNTS_BYTES, b"\0")
        found = [Crashed(*key, counts[key].times, doing) for key, doing in crashed.items() if key in counts]
        return tuple(sorted(found, key=lambda crash: (not crash.is_certain, -crash.times, crash)))


_Key = tuple[str, str, str]
_Noted = tuple[str, str, str, Doing]
"""Family, revision and variant; what was done with it."""


def _before(count: _Count | None, now: float) -> int:
    """How many crashes count besides a new one: none where it has been sound since for as long as forgives them."""
    if count is None:
        return 0
    away_s = back_off(Reason.CRASHED).seconds(count.times)
    return 0 if now - count.last_s >= away_s + sound_s(Reason.CRASHED, count.times) else count.times


def _noted(record: bytes) -> _Noted | None:
    """What a record says; `None` for one that says nothing, or was being written when the process ended."""
    if not record[0]:
        return None
    try:
        family, revision, variant, doing = json.loads(record.rstrip(b"\0"))
        return str(family), str(revision), str(variant), Doing(doing)
    except (ValueError, TypeError):
        return None


def _counts(said: bytes) -> dict[_Key, _Count]:
    try:
        rows = json.loads(said.rstrip(b"\0") or b"[]")
        return {(str(f), str(r), str(v)): _Count(max(1, int(times)), float(last_s)) for f, r, v, times, last_s in rows}
    except (ValueError, TypeError, OverflowError):
        return {}
