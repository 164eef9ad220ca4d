"""Tensor data as lists of elements, to arrays: JSON's, nested or flat, and gRPC's, which are flat. Row-major order."""

from __future__ import annotations

import struct
import sys
from itertools import chain
from typing import Any

import numpy as np

from service.oip.binary import check_finite
from service.oip.datatypes import Array, bfloat16_bits, from_bfloat16_bits
from service.oip.errors import ProtocolError, malformed, shown
from service.oip.signature import Tensor

# The machine's byte order said outright: in the implied one, struct lets a float overflow to infinity.
_STANDARD = "<" if sys.byteorder == "little" else ">"


def from_json(data: Any, tensor: Tensor, shape: list[int], elements: int) -> Array:
    """The array of parsed JSON `data` for a sound shape of that many elements; BYTES elements are UTF-8.

    Raises `ProtocolError` 400 for a wrong length, ragged nesting, and elements of a wrong type or out of range.
    """
    if type(data) is not list:
        raise malformed(f"input {tensor.name!r}: data", "a list", shown(data))
    if data and type(data[0]) is list:
        data = _flattened(data, tensor, shape)
    _check_length(data, tensor, shape, elements)
    datatype = tensor.datatype
    if not datatype.json_types.issuperset(map(type, data)):
        index, value = next((i, v) for i, v in enumerate(data) if type(v) not in datatype.json_types)
        raise malformed(f"input {tensor.name!r}: data[{index}]", datatype.expected, shown(value))
    if datatype.wire is None:
        return _objects([text.encode() for text in data], shape)
    array = _numbers(data, tensor, shape)
    return _as_bfloat16(array, data, tensor) if datatype.name == "BF16" else array


def from_contents(data: list[Any], tensor: Tensor, shape: list[int], elements: int, field: str) -> Array:
    """The array of elements that are of the datatype's kind already; those of BYTES are `bytes`.

    `field` of the input has them. Raises `ProtocolError` 400 for a wrong length, and for elements that are out of range
    or not finite.
    """
    _check_length(data, tensor, shape, elements, field)
    if tensor.datatype.wire is None:
        return _objects(data, shape)
    array = _numbers(data, tensor, shape)
    check_finite(array, tensor)
    return array


def _check_length(data: list[Any], tensor: Tensor, shape: list[int], elements: int, field: str = "data") -> None:
    if len(data) != elements:
        raise malformed(f"input {tensor.name!r}: {field}", f"{elements} elements for shape {shape}", str(len(data)))


def _objects(data: list[bytes], shape: list[int]) -> Array:
    array = np.empty(len(data), dtype=object)
    array[:] = data
    array.flags.writeable = False
    return array.reshape(shape)


def _numbers(data: list[Any], tensor: Tensor, shape: list[int]) -> Array:
    datatype = tensor.datatype
    try:
        # struct checks the range of each element, which numpy's own conversion of lists does not for floats, and it is
        # faster. JSON has no non-finite numbers, and the parser refuses those too large for a double.
        packed = struct.pack(f"{_STANDARD}{len(data)}{datatype.code}", *data)
    except (struct.error, OverflowError):
        index, value = next((i, v) for i, v in enumerate(data) if not _fits(tensor, v))
        raise _out_of_range(tensor, index, value) from None
    return np.ndarray(shape, datatype.dtype, packed)


def _flattened(data: list[Any], tensor: Tensor, shape: list[int]) -> list[Any]:
    """The elements of lists nested exactly as the shape."""
    level = [data]
    for axis, length in enumerate(shape):
        for part in level:
            if type(part) is not list or len(part) != length:
                raise malformed(f"input {tensor.name!r}: data", f"lists of {length} on axis {axis}", shown(part))
        level = list(chain.from_iterable(level))
    return level


def _as_bfloat16(array: Array, data: list[Any], tensor: Tensor) -> Array:
    """Rounded as a raw tensor would have been, so that an answer does not depend on the encoding."""
    rounded = from_bfloat16_bits(bfloat16_bits(array))
    finite = np.isfinite(rounded).ravel()
    if not finite.all():
        index = int(finite.argmin())
        raise _out_of_range(tensor, index, data[index])
    rounded.flags.writeable = False
    return rounded


def _fits(tensor: Tensor, value: float) -> bool:
    try:
        struct.pack(_STANDARD + tensor.datatype.code, value)
    except (struct.error, OverflowError):
        return False
    return True


def _out_of_range(tensor: Tensor, index: int, value: float) -> ProtocolError:
    return malformed(
        f"input {tensor.name!r}: data[{index}]", f"a value in the range of {tensor.datatype.name}", shown(value)
    )
