"""What runs just now, on a file that outlives this process: if a model ends it, its successor knows which one.

Threads do not survive a native abort. The supervisor starts the process again, and the variants under which it ended
begin in quarantine there, for longer each time. The file belongs to one supervisor, and is removed when the gateway
ends as it should.
"""

from __future__ import annotations

import itertools
import json
import logging
import mmap
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import psutil

logger = logging.getLogger("pareto.quarantine")

RECORD_BYTES = 256
COUNTS_BYTES = 16 * 1024
"""For the crashes of each variant so far; those that do not fit are forgotten, the oldest first."""
MOST_KNOWN = 4096
"""Records that are kept ready to be written: revisions come and go."""
PROBES = 8
"""Probes that may run at a time; of more, the last ones are noted."""


class Crashed(NamedTuple):
    """A variant that ran when a process ended, and how often it has by now."""

    family: str
    revision: str
    variant: str
    times: int


class CrashMarker:
    """The file of one supervisor. Raises `OSError` where it cannot be had.

    `crashed` are the variants under which the process before this one ended. A note takes less than a microsecond.
    """

    def __init__(self, path: Path, slots: int) -> None:
        self._path = path
        self._slots = slots
        self._probe = itertools.count()
        self._records: dict[tuple[str, str, str], bytes] = {}
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
        self.crashed = self._count()

    @classmethod
    def of_supervisor(cls, slots: int) -> CrashMarker | None:
        """That of the process that started this one; `None` where there can be none, which is logged."""
        try:
            parent = psutil.Process(os.getppid())
            name = f"pareto-running-{parent.pid}-{int(parent.create_time() * 1000)}"
            return cls(Path(tempfile.gettempdir()) / name, slots)
        except (OSError, psutil.Error) as error:
            logger.warning("a variant that ends this process is not known to the next one: %s", error)
            return None

    def begin(self, slot: int, family: str, revision: str, variant: str) -> None:
        """A batch of that variant begins in a slot."""
        key = (family, revision, variant)
        record = self._records.get(key)
        if record is None:
            if len(self._records) >= MOST_KNOWN:
                self._records.clear()
            record = json.dumps(key).encode().ljust(RECORD_BYTES, b"\0")[:RECORD_BYTES]
            self._records[key] = record
        at = COUNTS_BYTES + slot * RECORD_BYTES
        self._pages[at : at + RECORD_BYTES] = record

    def end(self, slot: int) -> None:
        """It has ended, one way or the other."""
        self._pages[COUNTS_BYTES + slot * RECORD_BYTES] = 0

    @contextmanager
    def probing(self, family: str, revision: str, variant: str) -> Iterator[None]:
        """A variant is tried away from requests."""
        at = self._slots + next(self._probe) % PROBES
        self.begin(at, family, revision, variant)
        try:
            yield
        finally:
            self.end(at)

    def remove(self) -> None:
        """The gateway ends as it should."""
        with suppress(OSError):
            self._path.unlink()

    def _count(self) -> tuple[Crashed, ...]:
        """Read what was left behind, add it to the counts, and begin anew."""
        counts = _counts(self._pages[:COUNTS_BYTES])
        crashed = set()
        for at in range(COUNTS_BYTES, len(self._pages) - RECORD_BYTES + 1, RECORD_BYTES):
            key = _key(self._pages[at : at + RECORD_BYTES])
            self._pages[at] = 0
            if key is not None:
                crashed.add(key)
        for key in sorted(crashed):
            # Last again: the oldest are forgotten first.
            counts[key] = counts.pop(key, 0) + 1
        said = b""
        while len(said := json.dumps([[*key, times] for key, times in counts.items()]).encode()) > COUNTS_BYTES:
            del counts[next(iter(counts))]
        self._pages[:COUNTS_BYTES] = said.ljust(COUNTS_BYTES, b"\0")
        return tuple(Crashed(*key, counts[key]) for key in sorted(crashed) if key in counts)


def _key(record: bytes) -> tuple[str, str, str] | None:
    """What a record says; `None` for one that says nothing, or was being written when the process ended."""
    if not record[0]:
        return None
    try:
        family, revision, variant = json.loads(record.rstrip(b"\0"))
    except ValueError:
        return None
    return str(family), str(revision), str(variant)


def _counts(said: bytes) -> dict[tuple[str, str, str], int]:
    try:
        return {(str(f), str(r), str(v)): int(times) for f, r, v, times in json.loads(said.rstrip(b"\0") or b"[]")}
    except (ValueError, TypeError):
        return {}
