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
from pathlib import Path

LEAST_BYTES = 1 << 20
_OF_THE_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO})
_PIECE_BYTES = 1 << 20


def raise_if_full(error: BaseException, written: Path, scratch: Path) -> None:
    """Raise `OSError` where `error` comes of a disk that takes no more, or where one of the folders is on such a disk.

    Each has to take as much again as the largest file in the folder that was `written` to, at least `LEAST_BYTES`: what
    did not fit may have been removed since.
    """
    for cause in _causes(error):
        if isinstance(cause, OSError) and cause.errno in _OF_THE_DISK:
            raise OSError(cause.errno, os.strerror(cause.errno)) from error
    sizes = (path.stat().st_size for path in written.rglob("*") if path.is_file())
    wanted_bytes = max(LEAST_BYTES, max(sizes, default=0))
    for folder in (written, scratch):
        _check_room(folder, wanted_bytes)


def _causes(error: BaseException) -> Iterator[BaseException]:
    following: BaseException | None = error
    while following is not None:
        yield following
        following = following.__cause__ or following.__context__


def _check_room(folder: Path, wanted_bytes: int) -> None:
    """Write that much and remove it: what is free is not always what this process may have. Raises `OSError`."""
    piece = bytes(_PIECE_BYTES)
    with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        for start in range(0, wanted_bytes, _PIECE_BYTES):
            left = memoryview(piece)[: wanted_bytes - start]
            while left:
                left = left[file.write(left) :]
        os.fsync(file.fileno())
