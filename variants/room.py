"""Whether what failed while files were written failed for want of room.

Not every tool says so: some write C++ streams that they do not look at again, and fail when they read back what is not
whole, or raise something of their own. What is written next would not fit either, so such a build ends, where otherwise
it would be published without what did not fit.
"""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

LEAST_BYTES = 1 << 20
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_OF_THE_DISK = _NO_ROOM | {errno.EROFS, errno.EIO}
_PIECE_BYTES = 1 << 20
_LONGEST_REASON = 200


def raise_if_full(error: BaseException, written: Path, scratch: Path) -> None:
    """Raise `OSError` where `error` comes of a disk that takes no more, or where one of the folders is on such a disk.

    The folder that was `written` to has to take as much again as its largest file, for what did not fit may have been
    removed since; `scratch`, where no model needs to fit, `LEAST_BYTES`, as does the other at least. What is raised
    quotes `error` where that says something else, or names a file.
    """
    for cause, meant in _causes(error):
        # A cache that is read-only, or unreadable, may have been tried in passing; room stays wanting.
        if isinstance(cause, OSError) and cause.errno in (_OF_THE_DISK if meant else _NO_ROOM):
            raise _full(cause, error) from error
    for folder, wanted_bytes in ((written, max(LEAST_BYTES, _largest(written))), (scratch, LEAST_BYTES)):
        try:
            _check_room(folder, wanted_bytes)
        except OSError as fault:
            # A folder that is gone, or not to be written to, says nothing of the disk.
            if fault.errno in _OF_THE_DISK:
                raise _full(fault, error) from error


def _full(fault: OSError, error: BaseException) -> OSError:
    number = fault.errno or 0
    said = os.strerror(number)
    if fault is not error or fault.filename is not None:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        said = f"{said} ({reason[:_LONGEST_REASON]})"
    return OSError(number, said)


def _causes(error: BaseException) -> Iterator[tuple[BaseException, bool]]:
    """The error and what it came of, as a traceback shows it, and whether it says so itself: `raise ... from`."""
    seen: set[int] = set()
    following: BaseException | None = error
    meant = True
    while following is not None and id(following) not in seen:
        seen.add(id(following))
        yield following, meant
        if following.__cause__ is not None:
            following = following.__cause__
        else:
            following, meant = None if following.__suppress_context__ else following.__context__, False


def _largest(folder: Path) -> int:
    """Bytes of the largest file in it; files may go meanwhile."""
    largest = 0
    for path in folder.rglob("*"):
        with suppress(OSError):
            if path.is_file():
                largest = max(largest, path.stat().st_size)
    return largest


def _check_room(folder: Path, wanted_bytes: int) -> None:
    """Write that much and remove it: what is free is not always what this process may have. Raises `OSError`."""
    piece = bytes(_PIECE_BYTES)
    with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        for start in range(0, wanted_bytes, _PIECE_BYTES):
            left = memoryview(piece)[: wanted_bytes - start]
            while left:
                left = left[file.write(left) :]
        os.fsync(file.fileno())
