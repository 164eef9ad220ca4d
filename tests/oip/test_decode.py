"""What a sound request decodes to, and how each fault of an unsound one is named."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson
import pytest

from service.oip.decode import decode_infer
from service.oip.errors import ProtocolError
from service.oip.request import InferRequest, Limits, OutputRequest
from service.oip.signature import Signature
from tests.oip.specs import TWO_INPUTS, one_input

LIMITS = Limits(max_rows=8, max_elements=64)


def tensor(data: Any = None, **fields: Any) -> dict[str, Any]:
    """A sound entry of `inputs` for two rows of two FP32, but for what is given."""
    entry = {"name": "x", "shape": [2, 2], "datatype": "FP32", "data": [1, 2, 3, 4.5] if data is None else data}
    return entry | fields


def decode(document: Any, signature: Signature | None = None) -> InferRequest:
    return decode_infer(orjson.dumps(document), None, signature or one_input("FP32", 2), LIMITS)


def fault(document: Any, signature: Signature | None = None) -> str:
    with pytest.raises(ProtocolError) as caught:
        decode(document, signature)
    assert caught.value.status == 400
    assert caught.value.reason is None
    return caught.value.message


def test_everything_a_request_says_is_decoded() -> None:
    """Id, parameters, inputs, rows and wanted outputs come out as sent."""
    request = decode(
        {
            "id": "ünï",
            "parameters": {"slo_ms": 5, "note": "a", "flag": True, "binary_data_output": True},
            "inputs": [tensor()],
            "outputs": [{"name": "scores"}, {"name": "label", "parameters": {"binary_data": False, "other": 1}}],
            "unknown": [1],
        }
    )
    assert request.id == "ünï"
    assert request.parameters["slo_ms"] == 5
    assert request.rows == 2
    assert request.inputs["x"].tolist() == [[1.0, 2.0], [3.0, 4.5]]
    assert request.inputs["x"].dtype == np.float32
    assert request.outputs == (OutputRequest("scores", binary=True), OutputRequest("label", binary=False))
    assert request.binary_default


def test_optional_fields_may_be_null_or_absent() -> None:
    """A client that writes null for what it does not set is understood."""
    absent = decode({"inputs": [tensor()]})
    null = decode({"id": None, "parameters": None, "outputs": None, "inputs": [tensor(parameters=None)]})
    assert (absent.id, dict(absent.parameters), absent.outputs, absent.binary_default) == ("", {}, (), False)
    assert (null.id, dict(null.parameters), null.outputs, null.binary_default) == ("", {}, (), False)


def test_nested_and_flat_data_are_the_same() -> None:
    """Nested lists are read in row-major order."""
    flat = decode({"inputs": [tensor([1, 2, 3, 4])]}).inputs["x"]
    nested = decode({"inputs": [tensor([[1, 2], [3, 4]])]}).inputs["x"]
    assert nested.tolist() == flat.tolist() == [[1.0, 2.0], [3.0, 4.0]]


def test_text_becomes_utf8_bytes() -> None:
    """BYTES in JSON are strings and decode to their UTF-8."""
    request = decode({"inputs": [tensor(["ä", ""], shape=[2], datatype="BYTES")]}, one_input("BYTES"))
    assert request.inputs["x"].tolist() == ["ä".encode(), b""]


def test_several_inputs_come_in_any_order() -> None:
    """Inputs are matched by name, not by place."""
    numbers = {"name": "n", "shape": [2], "datatype": "INT32", "data": [7, -8]}
    request = decode({"inputs": [numbers, tensor()]}, TWO_INPUTS)
    assert request.inputs["n"].tolist() == [7, -8]
    assert request.inputs["x"].shape == (2, 2)


@pytest.mark.parametrize(
    ("body", "named"),
    [
        (b"", "body: expected JSON"),
        (b"{", "body: expected JSON"),
        (b'{"inputs": [{"name": "x", "shape": [1', "body: expected JSON"),
        (b"[]", "body: expected a JSON object, got a list of 0"),
        (b"null", "body: expected a JSON object, got null"),
        (b"[" * 100_000, "body: expected JSON"),
        (b'{"a":' * 100_000, "body: expected JSON"),
        (b'{"id": "\xff"}', "body: expected JSON"),
        (b'{"id": "\\ud800"}', "body: expected JSON"),
        (b'{"inputs": [{"name":"x","shape":[1,2],"datatype":"FP32","data":[NaN,1]}]}', "body: expected JSON"),
        (b'{"inputs": [{"name":"x","shape":[1,2],"datatype":"FP32","data":[1e999,1]}]}', "body: expected JSON"),
        (b'{"inputs": [{"name":"x","shape":[1,2],"datatype":"FP32","data":[-Infinity,1]}]}', "body: expected JSON"),
    ],
    ids=lambda value: str(value)[:24],
)
def test_what_is_not_a_json_object_is_refused(body: bytes, named: str) -> None:
    """Truncated, deep, non-finite, non-UTF-8 and non-object JSON are all one kind of fault."""
    with pytest.raises(ProtocolError, match=named) as caught:
        decode_infer(body, None, one_input("FP32", 2), LIMITS)
    assert caught.value.status == 400
    assert len(caught.value.message) < 300


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"id": 5, "inputs": []}, "id: expected a string of at most 256 characters, got 5"),
        ({"id": "a" * 257}, f"id: expected a string of at most 256 characters, got {'a' * 80!r}... (257 characters)"),
        ({"parameters": []}, "parameters: expected an object, got a list of 0"),
        (
            {"parameters": {"a": {}}},
            "parameters['a']: expected a string, number or boolean, got an object",
        ),
        (
            {"parameters": {"binary_data_output": 1}},
            "parameters.binary_data_output: expected true or false, got 1",
        ),
        ({}, "inputs: expected a list with 'x', got null"),
        ({"inputs": []}, "inputs: expected a list with 'x', got a list of 0"),
        ({"inputs": {"x": 1}}, "inputs: expected a list with 'x', got an object"),
        ({"inputs": [5]}, "inputs[0]: expected an object, got 5"),
        ({"inputs": [tensor(name="y")]}, "inputs[0].name: expected 'x', got 'y'"),
        ({"inputs": [tensor(name=["x"])]}, "inputs[0].name: expected 'x', got a list of 1"),
        ({"inputs": [tensor(), tensor()]}, "input 'x': expected it once, got it twice"),
        ({"inputs": [tensor(datatype="FP64")]}, "input 'x': datatype: expected 'FP32', got 'FP64'"),
        ({"inputs": [tensor(datatype=None)]}, "input 'x': datatype: expected 'FP32', got null"),
        ({"inputs": [tensor(parameters=3)]}, "input 'x': parameters: expected an object, got 3"),
        (
            {"inputs": [tensor(parameters={"shared_memory_region": "a"})]},
            "input 'x': parameter shared_memory_region is not supported",
        ),
        (
            {"inputs": [tensor(parameters={"binary_data_size": 16})]},
            "input 'x': expected either data or parameters.binary_data_size, got both",
        ),
        (
            {"inputs": [{"name": "x", "shape": [2, 2], "datatype": "FP32", "parameters": {"binary_data_size": 16}}]},
            "input 'x': binary_data_size needs the header Inference-Header-Content-Length, got none",
        ),
        (
            {"inputs": [{"name": "x", "shape": [2, 2], "datatype": "FP32"}]},
            "input 'x': expected data or parameters.binary_data_size, got neither",
        ),
        ({"inputs": [tensor()], "outputs": {}}, "outputs: expected a list, got an object"),
        ({"inputs": [tensor()], "outputs": ["label"]}, "outputs[0]: expected an object, got 'label'"),
        (
            {"inputs": [tensor()], "outputs": [{"name": "logits"}]},
            "outputs[0].name: expected 'label' and 'scores', got 'logits'",
        ),
        (
            {"inputs": [tensor()], "outputs": [{"name": "label"}, {"name": "label"}]},
            "output 'label': expected it once, got it twice",
        ),
        (
            {"inputs": [tensor()], "outputs": [{"name": "label", "parameters": {"binary_data": "yes"}}]},
            "output 'label': parameters.binary_data: expected true or false, got 'yes'",
        ),
        (
            {"inputs": [tensor()], "outputs": [{"name": "label", "parameters": {"classification": 3}}]},
            "output 'label': parameter classification is not supported",
        ),
    ],
    ids=lambda value: value[:60] if isinstance(value, str) else "",
)
def test_a_fault_of_the_envelope_is_named(document: Any, message: str) -> None:
    """The message names the field, what was expected and what came."""
    assert fault(document) == message


@pytest.mark.parametrize(
    ("shape", "named", "got"),
    [
        (None, "shape: expected [-1, 2] (-1: any length)", "null"),
        ([2], "shape: expected [-1, 2] (-1: any length)", "[2]"),
        ([1, 2, 2], "shape: expected [-1, 2] (-1: any length)", "[1, 2, 2]"),
        ([2] * 5000, "shape: expected [-1, 2] (-1: any length)", "a list of 5000"),
        ("22", "shape: expected [-1, 2] (-1: any length)", "'22'"),
        ([0, 2], "shape[0]: expected a positive integer", "0"),
        ([-1, 2], "shape[0]: expected a positive integer", "-1"),
        ([True, 2], "shape[0]: expected a positive integer", "true"),
        ([2.0, 2], "shape[0]: expected a positive integer", "2.0"),
        (["2", 2], "shape[0]: expected a positive integer", "'2'"),
        ([[2], 2], "shape[0]: expected a positive integer", "a list of 1"),
        ([2, 3], "shape[1]: expected 2", "3"),
        ([9, 2], "shape[0]: expected at most 8 rows", "9"),
        ([2**63, 2], "shape[0]: expected at most 8 rows", str(2**63)),
    ],
    ids=str,
)
def test_a_wrong_shape_is_named(shape: Any, named: str, got: str) -> None:
    """Rank, fixed dimensions, and lengths that are zero, negative, huge or no integers."""
    assert fault({"inputs": [tensor(shape=shape)]}) == f"input 'x': {named}, got {got}"


def test_a_huge_product_of_lengths_is_refused() -> None:
    """Lengths that overflow any integer together allocate nothing."""
    shape = [1, 2**63, 2**63]
    message = fault({"inputs": [tensor(shape=shape)]}, one_input("FP32", -1, -1))
    assert message == f"input 'x': shape: expected at most 64 elements, got {2**126}"


@pytest.mark.parametrize(
    ("datatype", "data", "message"),
    [
        ("FP32", 5, "data: expected a list, got 5"),
        ("FP32", "1234", "data: expected a list, got '1234'"),
        ("FP32", {"0": 1}, "data: expected a list, got an object"),
        ("FP32", [1, 2, 3], "data: expected 4 elements for shape [2, 2], got 3"),
        ("FP32", [1, 2, 3, 4, 5], "data: expected 4 elements for shape [2, 2], got 5"),
        ("FP32", [], "data: expected 4 elements for shape [2, 2], got 0"),
        ("FP32", [[1, 2], [3]], "data: expected lists of 2 on axis 1, got a list of 1"),
        ("FP32", [[1, 2], 3], "data: expected lists of 2 on axis 1, got 3"),
        ("FP32", [[1, 2, 3, 4]], "data: expected lists of 2 on axis 0, got a list of 1"),
        ("FP32", [1, 2, 3, [4]], "data[3]: expected numbers, got a list of 1"),
        ("FP32", [[1, 2], [3, [4]]], "data[3]: expected numbers, got a list of 1"),
        ("FP32", [1, 2, "3", 4], "data[2]: expected numbers, got '3'"),
        ("FP32", [1, 2, True, 4], "data[2]: expected numbers, got true"),
        ("FP32", [1, 2, None, 4], "data[2]: expected numbers, got null"),
        ("FP32", [1, 2, {}, 4], "data[2]: expected numbers, got an object"),
        ("FP32", [1, 2, 1e39, 4], "data[2]: expected a value in the range of FP32, got 1e+39"),
        ("FP16", [1, 2, 65520, 4], "data[2]: expected a value in the range of FP16, got 65520"),
        ("BF16", [1, 2, 3.4e38, 4], "data[2]: expected a value in the range of BF16, got 3.4e+38"),
        ("INT32", [1, 2, 3.0, 4], "data[2]: expected integers, got 3.0"),
        ("INT32", [1, True, 3, 4], "data[1]: expected integers, got true"),
        ("INT8", [1, 2, 128, 4], "data[2]: expected a value in the range of INT8, got 128"),
        ("INT8", [1, 2, -129, 4], "data[2]: expected a value in the range of INT8, got -129"),
        ("UINT8", [1, 2, -1, 4], "data[2]: expected a value in the range of UINT8, got -1"),
        ("UINT16", [1, 2, 65536, 4], "data[2]: expected a value in the range of UINT16, got 65536"),
        ("INT64", [1, 2, 2**63, 4], f"data[2]: expected a value in the range of INT64, got {2**63}"),
        ("BOOL", [True, False, 1, True], "data[2]: expected true or false, got 1"),
        ("BYTES", ["a", "b", 3, "d"], "data[2]: expected strings, got 3"),
        ("BYTES", ["a", "b", None, "d"], "data[2]: expected strings, got null"),
    ],
    ids=str,
)
def test_wrong_data_is_named(datatype: str, data: Any, message: str) -> None:
    """Length, nesting, type and range of the elements, with the index of the first wrong one."""
    document = {"inputs": [tensor(data, datatype=datatype)]}
    assert fault(document, one_input(datatype, 2)) == f"input 'x': {message}"


def test_integers_beyond_64_bits_are_refused() -> None:
    """Such a number is not silently wrapped into the datatype."""
    body = b'{"inputs":[{"name":"x","shape":[1],"datatype":"UINT64","data":[18446744073709551616]}]}'
    with pytest.raises(ProtocolError, match=r"data\[0\]: expected integers"):
        decode_infer(body, None, one_input("UINT64"), LIMITS)


def test_inputs_of_different_rows_are_refused() -> None:
    """All inputs of a request have the same number of rows."""
    numbers = {"name": "n", "shape": [3], "datatype": "INT32", "data": [1, 2, 3]}
    message = fault({"inputs": [tensor(), numbers]}, TWO_INPUTS)
    assert message == "input 'n': shape[0]: expected 2 rows as in input 'x', got 3"


def test_a_missing_input_is_named() -> None:
    """Of several inputs the one that did not come is named."""
    assert fault({"inputs": [tensor()]}, TWO_INPUTS) == "inputs: expected 'x' and 'n', got no input 'n'"


def test_a_huge_value_is_not_echoed() -> None:
    """A message stays short whatever is wrong, and on one line."""
    documents: tuple[Any, ...] = (
        {"inputs": [tensor(name="y\n" * 100_000)]},
        {"inputs": [tensor(datatype="z" * 100_000)]},
        {"inputs": [tensor(shape=["s" * 100_000, 2])]},
        {"inputs": [tensor(["\x00" * 100_000, 1, 2, 3])]},
        {"parameters": {"p" * 100_000: []}},
    )
    for document in documents:
        message = fault(document)
        assert len(message) < 500
        assert "\n" not in message
