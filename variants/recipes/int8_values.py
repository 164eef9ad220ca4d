"""Matrices as int8, and the range of weights that gives the same products on every machine.

Products are uint8 x int8. x86 without VNNI adds pairs of them in 16 bits, which saturate: 255 * 127 * 2 is too much,
255 * 63 * 2 is not. So weights of products keep to 7 bits, which onnxruntime calls a reduced range. Measured without
VNNI: a small network on the digits answers 9 % of its rows otherwise than in fp32 with 8 bits, 0.2 % with 7; and what
is measured where a variant is built holds where it is served. Depthwise convolutions are no such products
(`variants.recipes.static_int8`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

LARGEST = 127
LARGEST_IN_PRODUCTS = 63


def symmetric_int8(
    matrix: NDArray[Any], axis: int, largest: int = LARGEST
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Return int8 values in [-largest, largest] and float32 scales such that values * scales is about `matrix`.

    There is one scale for each slice along `axis`; the scales keep that axis with length 1.
    """
    scales = np.maximum(np.abs(matrix).max(axis=axis, keepdims=True) / largest, np.finfo(np.float32).tiny)
    return np.rint(matrix / scales).astype(np.int8), scales.astype(np.float32)
