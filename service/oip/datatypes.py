"""The protocol's datatypes and the arrays that hold them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


class Datatype(NamedTuple):
    """One datatype. `dtype` is the array's, `wire` that of a raw little-endian blob (`None`: not of fixed size).

    `code` is its `struct` format, `json_types` what its values may be in parsed JSON, `expected` the words for that.
    """

    name: str
    dtype: np.dtype[Any]
    wire: np.dtype[Any] | None
    code: str
    json_types: frozenset[type]
    expected: str

    @property
    def inexact(self) -> bool:
        """Whether its values are floating-point."""
        return self.dtype.kind == "f"


_NUMBERS = (frozenset({float, int}), "numbers")
_INTEGERS = (frozenset({int}), "integers")
_TRUTHS = (frozenset({bool}), "true or false")
_STRINGS = (frozenset({str}), "strings")


def _datatype(name: str, dtype: str, code: str, values: tuple[frozenset[type], str], wire: str | None = "") -> Datatype:
    raw = None if wire is None else np.dtype(wire or dtype).newbyteorder("<")
    return Datatype(name, np.dtype(dtype), raw, code, *values)


DATATYPES: Mapping[str, Datatype] = MappingProxyType(
    {
        datatype.name: datatype
        for datatype in (
            _datatype("BOOL", "bool", "?", _TRUTHS),
            _datatype("UINT8", "uint8", "B", _INTEGERS),
            _datatype("UINT16", "uint16", "H", _INTEGERS),
            _datatype("UINT32", "uint32", "I", _INTEGERS),
            _datatype("UINT64", "uint64", "Q", _INTEGERS),
            _datatype("INT8", "int8", "b", _INTEGERS),
            _datatype("INT16", "int16", "h", _INTEGERS),
            _datatype("INT32", "int32", "i", _INTEGERS),
            _datatype("INT64", "int64", "q", _INTEGERS),
            _datatype("FP16", "float16", "e", _NUMBERS),
            _datatype("FP32", "float32", "f", _NUMBERS),
            _datatype("FP64", "float64", "d", _NUMBERS),
            _datatype("BF16", "float32", "f", _NUMBERS, "uint16"),
            _datatype("BYTES", "object", "", _STRINGS, None),
        )
    }
)
"""numpy has no bfloat16: BF16 is held as float32, which holds each of its values exactly. BYTES is held as `bytes`
objects."""


def datatype_of(dtype: np.dtype[Any]) -> str:
    """The datatype that arrays of this dtype are sent as. Raises `ValueError` where there is none."""
    if dtype.kind in "OSU":
        return "BYTES"
    for name, datatype in DATATYPES.items():
        if datatype.dtype == dtype:
            return name
    raise ValueError(f"dtype {dtype}: no datatype of the Open Inference Protocol holds it")


def bfloat16_bits(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Round float32 to bfloat16, ties to even, and return the bits. NaN stays NaN."""
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    odd = (bits >> np.uint32(16)) & np.uint32(1)
    # Integer overflow can only happen for NaN, whose bits are replaced below.
    rounded = ((bits + np.uint32(0x7FFF) + odd) >> np.uint32(16)).astype(np.uint16)
    rounded[np.isnan(values)] = 0x7FC0
    return rounded


def from_bfloat16_bits(bits: NDArray[np.uint16]) -> NDArray[np.float32]:
    """The float32 values of bfloat16 bits, exact."""
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)
