"""Batches in few shapes: runtimes that keep something for each shape that they ever ran get them rounded up. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray


def round_up(number: int, bits: int) -> int:
    """Return the least whole number from `number` (at least 1) on that has at most so many significant bits.

    With 2 bits 1, 2, 3, 4, 6, 8, 12, 16, ...: never half as much again; with 3 never a quarter more.
    """
    step = 1 << max(0, number.bit_length() - bits)
    return -(-number // step) * step


def padded(array: NDArray[Any], shape: Sequence[int], kind: DTypeLike | None = None) -> NDArray[Any]:
    """Return rows in a shape that holds them: longer rows end with zeros, and missing ones repeat the first."""
    kind = array.dtype if kind is None else kind
    if array.shape == tuple(shape) and array.dtype == kind:
        return array
    held = np.zeros(shape, kind)
    held[tuple(map(slice, array.shape))] = array
    held[len(array) :] = held[0]
    return held
