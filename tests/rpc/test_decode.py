"""What a message decodes to is what the same request over HTTP does; each fault is named, and none costs much."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.oip.binary import to_blob
from service.oip.datatypes import DATATYPES
from service.oip.errors import ProtocolError
from service.oip.request import InferRequest, Limits
from service.oip.signature import Signature
from service.rpc.decode import CONTENTS, MOST_FIELDS, check_weight, decode_message, parameters_of
from service.rpc.encode import encode_message
from service.rpc.open_inference_pb2 import InferParameter, ModelInferRequest, ModelInferResponse
from service.rpc.reading import parse
from tests.oip.specs import OUTPUTS, TWO_INPUTS, Spec, one_input

LIMITS = Limits(max_rows=8, max_elements=64)
ROWS = np.array([[1.0, 2.0], [3.0, 4.5]], np.float32)


def typed(**changes: Any) -> ModelInferRequest.InferInputTensor:
    """A sound input of two rows of two FP32, but for what is given."""
    fields = {"name": "x", "datatype": "FP32", "shape": [2, 2], "contents": {"fp32_contents": ROWS.ravel().tolist()}}
    return ModelInferRequest.InferInputTensor(**(fields | changes))


def decode(message: ModelInferRequest, signature: Signature | None = None) -> InferRequest:
    return decode_message(message, signature or one_input("FP32", 2), LIMITS)


def fault(message: ModelInferRequest, signature: Signature | None = None) -> str:
    with pytest.raises(ProtocolError) as caught:
        decode(message, signature)
    assert caught.value.status == 400
    return caught.value.message


def test_everything_a_request_says_is_decoded() -> None:
    """Id, parameters, inputs and wanted outputs come out as sent; outputs are typed as the inputs are."""
    message = ModelInferRequest(id="ünï", inputs=[typed()], outputs=[{"name": "scores"}, {"name": "label"}])
    message.parameters["slo_ms"].double_param = 5.5
    message.parameters["timeout"].int64_param = 7
    message.parameters["priority"].uint64_param = 1
    message.parameters["note"].string_param = "a"
    message.parameters["flag"].bool_param = True
    message.parameters["empty"].SetInParent()
    request = decode(message)
    assert request.parameters == {"slo_ms": 5.5, "timeout": 7, "priority": 1, "note": "a", "flag": True}
    assert (request.id, request.rows, request.binary_default) == ("ünï", 2, False)
    assert request.inputs["x"].tolist() == ROWS.tolist()
    assert [output.name for output in request.outputs] == ["scores", "label"]


def test_outputs_are_wanted_raw_where_inputs_are_or_a_parameter_says_so() -> None:
    """`binary_data_output` wins over the form of the inputs."""
    raw = ModelInferRequest(inputs=[typed(contents=None)], raw_input_contents=[ROWS.tobytes()])
    assert decode(raw).binary_default
    raw.parameters["binary_data_output"].bool_param = False
    assert not decode(raw).binary_default


@pytest.mark.parametrize("name", DATATYPES)
@given(data=st.data())
@settings(max_examples=10, deadline=None)
def test_raw_and_typed_tensors_decode_to_the_same(name: str, data: st.DataObject) -> None:
    """What is in range comes out as it went in, in both forms that a datatype has, and is sent back as it came."""
    datatype = DATATYPES[name]
    if name == "BYTES":
        values: Any = np.array(data.draw(st.lists(st.binary(max_size=5), min_size=4, max_size=4)), object)
    elif name == "BOOL":
        values = np.array(data.draw(st.lists(st.booleans(), min_size=4, max_size=4)))
    elif datatype.inexact:
        values = np.array(data.draw(st.lists(st.integers(-200, 200), min_size=4, max_size=4)), datatype.dtype)
    else:
        bounds = np.iinfo(datatype.dtype)
        numbers = st.integers(int(bounds.min), int(bounds.max))
        values = np.array(data.draw(st.lists(numbers, min_size=4, max_size=4)), datatype.dtype)
    values = values.reshape(2, 2)
    signature = one_input(name, 2)
    tensor = ModelInferRequest.InferInputTensor(name="x", datatype=name, shape=[2, 2])
    raw = decode(ModelInferRequest(inputs=[tensor], raw_input_contents=[to_blob(values, datatype)]), signature)
    assert raw.inputs["x"].tolist() == values.tolist()
    if name not in CONTENTS:
        assert "has no other form" in fault(ModelInferRequest(inputs=[tensor]), signature)
        return
    getattr(tensor.contents, CONTENTS[name]).extend(values.ravel().tolist())
    array = decode(ModelInferRequest(inputs=[tensor]), signature).inputs["x"]
    assert (array.tolist(), array.dtype, array.flags.writeable) == (values.tolist(), raw.inputs["x"].dtype, False)
    outputs = Signature.of([Spec("x", "FP32", (-1,))], [Spec("x", name, (-1, 2))])
    for binary, answer in ((False, ModelInferRequest(inputs=[tensor])), (True, None)):
        sent = encode_message("m", "v", "", outputs, {"x": array}, (), binary, {})
        if answer is None:
            assert sent.raw_output_contents[0] == to_blob(values, datatype)
        else:
            assert sent.outputs[0].contents == answer.inputs[0].contents


FAULTS = {
    "no_inputs": (ModelInferRequest(), "inputs: expected 'x', got none"),
    "unknown_input": (ModelInferRequest(inputs=[typed(name="y")]), "inputs[0].name: expected 'x', got 'y'"),
    "twice": (ModelInferRequest(inputs=[typed(), typed()]), "input 'x': expected it once, got it twice"),
    "datatype": (ModelInferRequest(inputs=[typed(datatype="FP64")]), "input 'x': datatype: expected 'FP32'"),
    "shape": (ModelInferRequest(inputs=[typed(shape=[4])]), "input 'x': shape: expected [-1, 2]"),
    "rows": (ModelInferRequest(inputs=[typed(shape=[9, 2])]), "input 'x': shape[0]: expected at most 8 rows"),
    "negative": (ModelInferRequest(inputs=[typed(shape=[-1, 2])]), "input 'x': shape[0]: expected a positive integer"),
    "no_contents": (ModelInferRequest(inputs=[typed(contents=None)]), "or contents.fp32_contents, got neither"),
    "wrong_contents": (
        ModelInferRequest(inputs=[typed(contents={"fp64_contents": [1.0] * 4})]),
        "input 'x': contents.fp32_contents: expected 4 elements for shape [2, 2], got 0",
    ),
    "not_finite": (
        ModelInferRequest(inputs=[typed(contents={"fp32_contents": [1.0, 2.0, float("inf"), 0.0]})]),
        "input 'x': element 2: expected a finite number, got inf",
    ),
    "raw_and_typed": (
        ModelInferRequest(inputs=[typed()], raw_input_contents=[ROWS.tobytes()]),
        "input 'x': expected either contents or raw_input_contents, got both",
    ),
    "too_many_blobs": (
        ModelInferRequest(inputs=[typed(contents=None)], raw_input_contents=[b"", b""]),
        "raw_input_contents: expected 1, one for each input, or none, got 2",
    ),
    "short_blob": (
        ModelInferRequest(inputs=[typed(contents=None)], raw_input_contents=[b"1234"]),
        "raw_input_contents[0]: bytes: expected 16 for FP32 of shape [2, 2], got 4",
    ),
    "raw_not_finite": (
        ModelInferRequest(inputs=[typed(contents=None)], raw_input_contents=[b"\x00\x00\xc0\x7f" * 4]),
        "input 'x': element 0: expected a finite number, got nan",
    ),
    "shared_memory": (
        ModelInferRequest(inputs=[typed(parameters={"shared_memory_region": InferParameter(string_param="r")})]),
        "parameter shared_memory_region is not supported",
    ),
    "classification": (
        ModelInferRequest(
            inputs=[typed()],
            outputs=[{"name": "label", "parameters": {"classification": InferParameter(int64_param=3)}}],
        ),
        "parameter classification is not supported",
    ),
    "unknown_output": (
        ModelInferRequest(inputs=[typed()], outputs=[{"name": "z"}]),
        "outputs[0].name: expected 'label' and 'scores', got 'z'",
    ),
    "long_id": (ModelInferRequest(id="i" * 257, inputs=[typed()]), "id: expected a string of at most 256 characters"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_names_the_field(name: str) -> None:
    """The words are those of HTTP where the field is the same."""
    message, said = FAULTS[name]
    assert said in fault(message)


def test_a_missing_input_and_rows_that_differ_are_named() -> None:
    """Of several inputs every one is needed, with as many rows."""
    counts = ModelInferRequest.InferInputTensor(name="n", datatype="INT32", shape=[1], contents={"int_contents": [7]})
    assert "no input 'n'" in fault(ModelInferRequest(inputs=[typed()]), TWO_INPUTS)
    assert "2 rows as in input 'x'" in fault(ModelInferRequest(inputs=[typed(), counts]), TWO_INPUTS)


def test_numbers_out_of_range_of_a_narrow_integer_are_named() -> None:
    """Three datatypes share 32 bits on the wire."""
    tensor = ModelInferRequest.InferInputTensor(name="x", datatype="INT8", shape=[1, 2])
    tensor.contents.int_contents.extend([1, 300])
    said = fault(ModelInferRequest(inputs=[tensor]), one_input("INT8", 2))
    assert "input 'x': data[1]: expected a value in the range of INT8, got 300" in said


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_a_request_or_a_400(message: bytes) -> None:
    """Whatever comes, it is answered."""
    try:
        decode(parse(ModelInferRequest, message))
        status = 200
    except ProtocolError as error:
        status = error.status
    assert status in (200, 400)


HEAVY = {
    "many_inputs": (b"\x2a\x00" * 100_000, 413, f"at most {MOST_FIELDS} fields"),
    "long_typed": (
        ModelInferRequest(inputs=[typed(contents={"fp32_contents": [0.0] * 50_000})]).SerializeToString(),
        413,
        "send raw tensors",
    ),
    "no_message": (b"\x07" * 70_000, 400, "expected a ModelInferRequest"),
    "endless_number": (b"\xff" * 70_000, 400, "expected a ModelInferRequest"),
    "ends_early": (b"\x3a\xff\xff\xff\x7f" + bytes(70_000), 200, ""),
    "raw": (ModelInferRequest(raw_input_contents=[bytes(1_000_000)]).SerializeToString(), 200, ""),
    "short": (b"\x2a\x00" * 20_000, 200, ""),
}


@pytest.mark.parametrize("name", HEAVY)
def test_what_would_unfold_is_refused_before_it_is_parsed(name: str) -> None:
    """Raw tensors may be long; other fields may be neither long nor many, but for what is short anyway."""
    message, status, said = HEAVY[name]
    if status == 200:
        check_weight(message, 100_000)
        return
    with pytest.raises(ProtocolError, match=said) as caught:
        check_weight(message, 100_000)
    assert caught.value.status == status


def test_a_limit_holds_for_short_messages_too() -> None:
    """Where it is lower than what is short."""
    short = b"\x2a\x00" * 600
    check_weight(short, 1200)
    with pytest.raises(ProtocolError, match="got 1200"):
        check_weight(short, 1199)


@given(
    st.lists(st.binary(max_size=3000), max_size=40), st.text(max_size=9), st.lists(st.integers(1, 2**40), max_size=9)
)
@settings(max_examples=50)
def test_a_message_that_is_sound_passes_where_it_is_short_enough(
    blobs: list[bytes], name: str, shape: list[int]
) -> None:
    """What is counted besides raw tensors is what the message has besides them."""
    filler = bytes(70_000)
    inputs = [ModelInferRequest.InferInputTensor(name=name, shape=shape)]
    message = ModelInferRequest(id=name, inputs=inputs, raw_input_contents=[*blobs, filler])
    whole = message.SerializeToString()
    other_bytes = len(whole) - sum(map(len, blobs)) - len(filler)
    check_weight(whole, other_bytes)
    with pytest.raises(ProtocolError, match=f"got {other_bytes}"):
        check_weight(whole, other_bytes - 1)


def test_an_answer_has_parameters_of_each_kind() -> None:
    """Texts, truths and numbers are told apart; a text that is also a word of ours stays a text."""
    signature = Signature.of([Spec("x", "FP32", (-1,))], OUTPUTS)
    arrays: dict[str, Any] = {"label": np.array(["a", b"b"], object), "scores": np.array([[0.5, 0.5]] * 2, np.float32)}
    said: dict[str, str | float | bool] = {"variant": "v", "slo_met": True, "first_confidence": 0.25}
    message = encode_message("m", "v", "7", signature, arrays, (), False, said)
    again = ModelInferResponse.FromString(message.SerializeToString())
    assert (again.model_name, again.model_version, again.id) == ("m", "v", "7")
    assert parameters_of(again.parameters) == said
    assert list(again.outputs[0].contents.bytes_contents) == [b"a", b"b"]
    assert not again.raw_output_contents


def test_an_output_without_a_typed_form_makes_all_raw() -> None:
    """A message has raw outputs for all or for none."""
    signature = Signature.of([Spec("x", "FP32", (-1,))], [Spec("a", "FP16", (-1,)), Spec("b", "FP32", (-1,))])
    arrays: dict[str, Any] = {"a": np.ones(1, np.float16), "b": np.ones(1, np.float32)}
    message = encode_message("m", "v", "", signature, arrays, (), False, {})
    assert list(message.raw_output_contents) == [b"\x00\x3c", b"\x00\x00\x80\x3f"]
    assert not any(output.HasField("contents") for output in message.outputs)
