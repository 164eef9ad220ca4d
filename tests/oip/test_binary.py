"""Raw tensors behind the JSON: sound ones, and the lies a header can tell."""

from __future__ import annotations

import struct
from typing import Any

import orjson
import pytest

from service.oip.decode import decode_infer
from service.oip.errors import ProtocolError
from service.oip.request import Limits
from service.oip.signature import Signature
from tests.oip.specs import TWO_INPUTS, one_input

LIMITS = Limits(max_rows=8, max_elements=64)


def raw(datatype: str, shape: list[int], size_bytes: Any, name: str = "x") -> dict[str, Any]:
    return {"name": name, "shape": shape, "datatype": datatype, "parameters": {"binary_data_size": size_bytes}}


def body(blob: bytes, *inputs: dict[str, Any]) -> tuple[bytes, int]:
    header = orjson.dumps({"inputs": inputs})
    return header + blob, len(header)


def fault(content: bytes, header_length: int | None, signature: Signature) -> str:
    with pytest.raises(ProtocolError) as caught:
        decode_infer(content, header_length, signature, LIMITS)
    assert caught.value.status == 400
    return caught.value.message


def test_raw_tensors_follow_in_order() -> None:
    """Each input takes its bytes after those of the input before it, JSON inputs take none."""
    blob = struct.pack("<2i", 7, -8) + struct.pack("<4f", 1, 2, 3, 4)
    content, length = body(blob, raw("INT32", [2], 8, "n"), raw("FP32", [2, 2], 16))
    request = decode_infer(content, length, TWO_INPUTS, LIMITS)
    assert request.inputs["n"].tolist() == [7, -8]
    assert request.inputs["x"].tolist() == [[1.0, 2.0], [3.0, 4.0]]


@pytest.mark.parametrize("padding", range(8))
def test_arrays_are_aligned_wherever_the_json_ends(padding: int) -> None:
    """A tensor that starts at an odd address is copied to a sound one."""
    header = orjson.dumps({"id": "i" * padding, "inputs": [raw("FP64", [1, 2], 16)]})
    request = decode_infer(header + struct.pack("<2d", 0.5, -1.5), len(header), one_input("FP64", 2), LIMITS)
    array = request.inputs["x"]
    assert array.flags.aligned
    assert array.flags.c_contiguous
    assert array.tolist() == [[0.5, -1.5]]


def test_the_body_may_be_a_memoryview() -> None:
    """Bodies are read without being copied first."""
    content, length = body(b"\x01\x00", raw("BOOL", [2], 2))
    request = decode_infer(memoryview(content), length, one_input("BOOL"), LIMITS)
    assert request.inputs["x"].tolist() == [True, False]


@pytest.mark.parametrize("length", [0, -1, 10_000_000])
def test_a_header_length_outside_the_body_is_refused(length: int) -> None:
    """`Inference-Header-Content-Length` is from 1 to the length of the body."""
    content, _ = body(b"\x00" * 16, raw("FP32", [2, 2], 16))
    message = fault(content, length, one_input("FP32", 2))
    expected = f"1 to {len(content)}, the length of the body in bytes"
    assert message == f"header Inference-Header-Content-Length: expected {expected}, got {length}"


@pytest.mark.parametrize("wrong_by", [-1, 1])
def test_a_header_length_that_cuts_the_json_wrongly_is_refused(wrong_by: int) -> None:
    """JSON that is cut short, or that runs on into the tensors, is no JSON."""
    content, length = body(b"\x00" * 16, raw("FP32", [2, 2], 16))
    assert fault(content, length + wrong_by, one_input("FP32", 2)).startswith("body: expected JSON, got ")


@pytest.mark.parametrize(
    ("size_bytes", "blob_bytes", "message"),
    [
        (8, 8, "input 'x': binary_data_size: expected 16 for FP32 of shape [2, 2], got 8"),
        (17, 17, "input 'x': binary_data_size: expected 16 for FP32 of shape [2, 2], got 17"),
        (16, 12, "input 'x': binary_data_size: expected at most the 12 bytes left in the body, got 16"),
        (-16, 16, "input 'x': binary_data_size: expected a number of bytes, got -16"),
        (True, 16, "input 'x': binary_data_size: expected a number of bytes, got true"),
        ("16", 16, "input 'x': binary_data_size: expected a number of bytes, got '16'"),
        (16.0, 16, "input 'x': binary_data_size: expected a number of bytes, got 16.0"),
        (2**63, 16, f"input 'x': binary_data_size: expected at most the 16 bytes left in the body, got {2**63}"),
        (16, 20, "body: expected 16 bytes of raw tensors after the JSON, got 4 more"),
    ],
    ids=str,
)
def test_a_size_that_lies_is_named(size_bytes: Any, blob_bytes: int, message: str) -> None:
    """The size must fit the shape and the body, and the tensors must use up the body."""
    content, length = body(b"\x00" * blob_bytes, raw("FP32", [2, 2], size_bytes))
    assert fault(content, length, one_input("FP32", 2)) == message


@pytest.mark.parametrize("datatype", ["FP16", "BF16", "FP32", "FP64"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_non_finite_raw_values_are_refused(datatype: str, value: float) -> None:
    """NaN and the infinities are as unwelcome raw as in JSON."""
    sizes = {"FP16": "<2e", "FP32": "<2f", "FP64": "<2d"}
    if datatype == "BF16":
        blob = b"\x00\x00" + struct.pack("<f", value)[2:]
    else:
        blob = struct.pack(sizes[datatype], 0.0, value)
    content, length = body(blob, raw(datatype, [2], len(blob)))
    assert fault(content, length, one_input(datatype)) == f"input 'x': element 1: expected a finite number, got {value}"


def test_a_raw_truth_value_is_0_or_1() -> None:
    """Another byte would be a BOOL that is neither true nor false."""
    content, length = body(b"\x01\x02", raw("BOOL", [2], 2))
    assert fault(content, length, one_input("BOOL")) == "input 'x': element 1: expected a byte 0 or 1, got 2"


def strings(*elements: bytes) -> bytes:
    return b"".join(struct.pack("<I", len(element)) + element for element in elements)


def test_raw_byte_strings_keep_every_byte() -> None:
    """Elements may be empty, hold zeros, and need not be UTF-8."""
    elements = [b"", b"\x00a\x00", b"\xff\xfe"]
    blob = strings(*elements)
    content, length = body(blob, raw("BYTES", [3], len(blob)))
    assert decode_infer(content, length, one_input("BYTES"), LIMITS).inputs["x"].tolist() == elements


@pytest.mark.parametrize(
    ("blob", "message"),
    [
        (b"", "binary_data_size: expected at least 4 bytes for each of 2 elements, got 0"),
        (strings(b"a"), "binary_data_size: expected at least 4 bytes for each of 2 elements, got 5"),
        (strings(b"abcd"), "element 1: expected a length of 4 bytes, got 0 bytes left"),
        (strings(b"abc") + b"\x00\x00", "element 1: expected a length of 4 bytes, got 2 bytes left"),
        (strings(b"ab") + b"\xff\xff\xff\xff", "element 1: expected at most 0 bytes, got length 4294967295"),
        (b"\x05\x00\x00\x00abcd", "element 0: expected at most 4 bytes, got length 5"),
        (strings(b"a", b"b") + b"!", "binary_data_size: expected 10 for 2 elements, got 11"),
    ],
    ids=str,
)
def test_length_prefixes_that_lie_are_named(blob: bytes, message: str) -> None:
    """Neither a prefix nor the number of elements makes the reader leave the tensor."""
    content, length = body(blob, raw("BYTES", [2], len(blob)))
    assert fault(content, length, one_input("BYTES")) == f"input 'x': {message}"
