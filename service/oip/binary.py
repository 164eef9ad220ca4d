"""Raw tensors (Triton's `binary_tensor_data` extension): little-endian, row-major, one after the other.

A BYTES element is its length as an unsigned 32-bit integer, then that many bytes.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

from service.oip.datatypes import Array, Datatype, bfloat16_bits, from_bfloat16_bits
from service.oip.errors import malformed, shown
from service.oip.signature import Tensor

_LENGTH = struct.Struct("<I")


class Blobs:
    """Hands out the raw tensors that follow a request's JSON, in order."""

    def __init__(self, view: memoryview) -> None:
        self._view = view
        self._offset = 0

    def take(self, tensor: Tensor, shape: list[int], elements: int, size_bytes: Any) -> Array:
        """The next `size_bytes` as a read-only array of a sound shape. Raises `ProtocolError` 400."""
        field = f"input {tensor.name!r}: binary_data_size"
        left = len(self._view) - self._offset
        if type(size_bytes) is not int or size_bytes < 0:
            raise malformed(field, "a number of bytes", shown(size_bytes))
        if size_bytes > left:
            raise malformed(field, f"at most the {left} bytes left in the body", str(size_bytes))
        blob = self._view[self._offset : self._offset + size_bytes]
        self._offset += size_bytes
        return from_blob(blob, tensor, shape, elements, field)

    def finish(self) -> None:
        """Raises `ProtocolError` 400 where bytes are left."""
        left = len(self._view) - self._offset
        if left:
            raise malformed("body", f"{self._offset} bytes of raw tensors after the JSON", f"{left} more")


def from_blob(blob: memoryview, tensor: Tensor, shape: list[int], elements: int, size_field: str) -> Array:
    """A raw tensor as a read-only array of a sound shape of so many elements; `size_field` says how long it is.

    Raises `ProtocolError` 400.
    """
    wire = tensor.datatype.wire
    if wire is None:
        return _byte_strings(blob, tensor, elements, size_field).reshape(shape)
    if len(blob) != elements * wire.itemsize:
        raise malformed(
            size_field,
            f"{elements * wire.itemsize} for {tensor.datatype.name} of shape {shape}",
            str(len(blob)),
        )
    return _numbers(blob, tensor, wire).reshape(shape)


def to_blob(array: Array, datatype: Datatype) -> bytes:
    """The raw form of an array. BYTES elements may be `bytes` or `str`."""
    if datatype.wire is None:
        elements = [element.encode() if isinstance(element, str) else bytes(element) for element in array.ravel()]
        return b"".join(part for element in elements for part in (_LENGTH.pack(len(element)), element))
    if datatype.name == "BF16":
        array = bfloat16_bits(array.astype(np.float32, copy=False))
    return array.astype(datatype.wire, copy=False).tobytes()


def check_finite(array: Array, tensor: Tensor) -> None:
    """Raises `ProtocolError` 400 that names the first element that is not finite, where the datatype has such."""
    if tensor.datatype.inexact:
        finite = np.isfinite(array)
        if not finite.all():
            index = int(finite.argmin())
            raise malformed(f"input {tensor.name!r}: element {index}", "a finite number", str(array.flat[index]))


def _numbers(blob: memoryview, tensor: Tensor, wire: np.dtype[Any]) -> Array:
    datatype = tensor.datatype
    raw = np.frombuffer(blob, wire)
    if datatype.name == "BOOL":
        octets = raw.view(np.uint8)
        if octets.max() > 1:
            index = int(octets.argmax())
            raise malformed(f"input {tensor.name!r}: element {index}", "a byte 0 or 1", str(octets[index]))
    if datatype.name == "BF16":
        array: Array = from_bfloat16_bits(raw)
    else:
        array = raw.astype(datatype.dtype, copy=not raw.flags.aligned)
    check_finite(array, tensor)
    array.flags.writeable = False
    return array


def _byte_strings(blob: memoryview, tensor: Tensor, elements: int, size_field: str) -> Array:
    if len(blob) < elements * _LENGTH.size:
        raise malformed(size_field, f"at least 4 bytes for each of {elements} elements", str(len(blob)))
    field = f"input {tensor.name!r}"
    strings: list[bytes] = []
    offset = 0
    for index in range(elements):
        start = offset + _LENGTH.size
        if start > len(blob):
            raise malformed(f"{field}: element {index}", "a length of 4 bytes", f"{len(blob) - offset} bytes left")
        (length,) = _LENGTH.unpack_from(blob, offset)
        offset = start + length
        if offset > len(blob):
            raise malformed(f"{field}: element {index}", f"at most {len(blob) - start} bytes", f"length {length}")
        strings.append(bytes(blob[start:offset]))
    if offset != len(blob):
        raise malformed(size_field, f"{offset} for {elements} elements", str(len(blob)))
    array = np.empty(elements, dtype=object)
    array[:] = strings
    array.flags.writeable = False
    return array
