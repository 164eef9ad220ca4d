"""Arrays in memory that two processes share. Who writes them tells the other one by message where they lie."""

from __future__ import annotations

import fcntl
import mmap
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

ALIGNED = 64
"""Bytes; runtimes compute faster on arrays that begin at a multiple of this."""
LEAST_BYTES = 64 * 1024
_KINDS = "biuf"

Told = list[Any]
"""Where an array lies: its name, its type as numpy writes it, its shape, its offset in bytes. Goes through JSON."""


class TensorError(ValueError):
    """Arrays cannot be shared, or what was told of them is not true. The message is one line."""


class Area:
    """Memory that belongs to two processes, by turns: nobody writes while the other one may read.

    It grows as needed. It cannot be made smaller, by neither side: what is mapped can always be read.
    """

    def __init__(self, file: int) -> None:
        self.file = file
        self._pages: mmap.mmap | None = None
        self._bytes = 0

    @classmethod
    def make(cls) -> Area:
        """An empty one."""
        file = os.memfd_create("pareto-tensors", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        fcntl.fcntl(file, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
        return cls(file)

    def write(self, arrays: Mapping[str, NDArray[Any]]) -> list[Told]:
        """Copy arrays here, over whatever was. Raises `TensorError` for one that does not hold numbers."""
        told: list[Told] = []
        end = 0
        for name, array in arrays.items():
            if array.dtype.kind not in _KINDS:
                raise TensorError(f"{name}: {array.dtype} is not a type of numbers")
            told.append([name, array.dtype.str, list(array.shape), end])
            end += -(-array.nbytes // ALIGNED) * ALIGNED
        if end > self._bytes:
            size = max(LEAST_BYTES, 1 << (end - 1).bit_length())
            os.ftruncate(self.file, size)
            self._map(size)
        for (_, _, shape, offset), array in zip(told, arrays.values(), strict=True):
            if array.nbytes:
                np.ndarray(shape, array.dtype, self._pages, offset)[...] = array
        return told

    def read(self, told: Sequence[Told]) -> dict[str, NDArray[Any]]:
        """Arrays as they lie here, valid until the next `write`. Raises `TensorError` where they lie elsewhere."""
        arrays = {}
        for one in told:
            try:
                name, kind, shape, offset = one
                dtype, count = np.dtype(str(kind)), 1
                for length in shape:
                    if not isinstance(length, int) or length < 0:
                        raise TensorError(f"{name}: {shape} is no shape")
                    count *= length
            except (TypeError, ValueError) as error:
                raise TensorError(f"not an array: {str(one)[:200]}") from error
            if dtype.kind not in _KINDS or not isinstance(name, str) or not isinstance(offset, int) or offset < 0:
                raise TensorError(f"not an array: {str(one)[:200]}")
            if offset + count * dtype.itemsize > self._bytes:
                self._grow(offset + count * dtype.itemsize)
            arrays[name] = np.ndarray(shape, dtype, self._pages, offset) if count else np.empty(shape, dtype)
        return arrays

    def close(self) -> None:
        """Give it back here, once no array of it is in use any more."""
        os.close(self.file)
        self._pages = None

    def _grow(self, end: int) -> None:
        size = os.fstat(self.file).st_size
        if end > size:
            raise TensorError(f"an array ends at byte {end} of {size}")
        self._map(size)

    def _map(self, size: int) -> None:
        # The old mapping lives as long as arrays of it; it shows the same memory.
        self._pages = mmap.mmap(self.file, size)
        self._bytes = size
