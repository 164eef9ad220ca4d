"""Answers as JSON and as raw tensors."""

from __future__ import annotations

import struct

import numpy as np
import orjson
import pytest

from service.oip.datatypes import Array
from service.oip.encode import encode_infer
from service.oip.errors import ProtocolError
from service.oip.request import OutputRequest
from service.oip.signature import Signature
from tests.oip.specs import Spec, one_input

SIGNATURE = one_input("FP32", 2)
ARRAYS: dict[str, Array] = {
    "label": np.array([b"positive", "n\u00e9gative"], dtype=object),
    "scores": np.array([[0.1, 0.9], [1.0, 0.0]], dtype=np.float32),
}


def encode(*wanted: OutputRequest, binary_default: bool = False) -> tuple[bytes, int | None]:
    return encode_infer("m", "v", "r", SIGNATURE, ARRAYS, wanted, binary_default, {"slo_met": True})


def test_every_output_comes_as_json_by_default() -> None:
    """Data is flat, text is text, and shape, datatype, version, id and parameters are said."""
    body, length = encode()
    assert length is None
    assert orjson.loads(body) == {
        "model_name": "m",
        "model_version": "v",
        "id": "r",
        "parameters": {"slo_met": True},
        "outputs": [
            {"name": "label", "datatype": "BYTES", "shape": [2], "data": ["positive", "négative"]},
            {"name": "scores", "datatype": "FP32", "shape": [2, 2], "data": [0.1, 0.9, 1.0, 0.0]},
        ],
    }


def test_an_absent_id_and_no_parameters_are_left_out() -> None:
    """Nothing is echoed that was not sent."""
    body, _ = encode_infer("m", "v", "", SIGNATURE, ARRAYS, (OutputRequest("label", binary=False),), False, {})
    assert sorted(orjson.loads(body)) == ["model_name", "model_version", "outputs"]


def test_raw_outputs_follow_the_json_in_the_wanted_order() -> None:
    """The length of the JSON is returned, and each raw output says its size."""
    body, length = encode(OutputRequest("scores", binary=True), OutputRequest("label", binary=True))
    assert length is not None
    outputs = orjson.loads(body[:length])["outputs"]
    assert [output["name"] for output in outputs] == ["scores", "label"]
    assert [output["parameters"] for output in outputs] == [{"binary_data_size": 16}, {"binary_data_size": 25}]
    assert all("data" not in output for output in outputs)
    text = "négative".encode()
    assert body[length:] == struct.pack("<4f", *ARRAYS["scores"].ravel()) + (
        struct.pack("<I", 8) + b"positive" + struct.pack("<I", len(text)) + text
    )


def test_raw_and_json_outputs_may_be_mixed() -> None:
    """Each output comes as it was asked for."""
    body, length = encode(OutputRequest("scores", binary=True), OutputRequest("label", binary=False))
    assert length is not None
    scores, label = orjson.loads(body[:length])["outputs"]
    assert "data" not in scores
    assert label["data"] == ["positive", "négative"]
    assert len(body) - length == 16


def test_arrays_of_another_dtype_or_order_are_sent_as_the_signature_says() -> None:
    """What a model hands out is cast to what its metadata promises, row-major."""
    arrays = ARRAYS | {"scores": np.array([[1, 2], [3, 4]], dtype=np.float64).T}
    for binary in (False, True):
        wanted = (OutputRequest("scores", binary),)
        body, length = encode_infer("m", "v", "", SIGNATURE, arrays, wanted, False, {})
        (output,) = orjson.loads(body[:length])["outputs"]
        data = struct.unpack("<4f", body[length:]) if binary else tuple(output["data"])
        assert data == (1.0, 3.0, 2.0, 4.0)


def test_bytes_that_are_no_text_must_be_asked_for_raw() -> None:
    """JSON cannot hold them; the message says what to do."""
    arrays = {"label": np.array([b"\xff"], dtype=object)}
    wanted = (OutputRequest("label", binary=False),)
    with pytest.raises(ProtocolError, match="binary_data: true") as caught:
        encode_infer("m", "v", "", SIGNATURE, arrays, wanted, False, {})
    assert caught.value.status == 400


def test_a_number_that_is_not_finite_is_null_in_json() -> None:
    """The body stays JSON whatever a model computes."""
    arrays = {"scores": np.array([[np.nan, np.inf]], dtype=np.float32)}
    body, _ = encode_infer("m", "v", "", SIGNATURE, arrays, (OutputRequest("scores", binary=False),), False, {})
    assert orjson.loads(body)["outputs"][0]["data"] == [None, None]


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ([], "a model needs at least one input"),
        ([Spec("x", "FP8", (-1,))], "input 'x': datatype 'FP8', expected one of "),
        ([Spec("x", "FP32", ())], r"input 'x': shape \[\], expected -1 \(rows\) first"),
        ([Spec("x", "FP32", (1, 2))], r"input 'x': shape \[1, 2\], expected -1 \(rows\) first"),
        ([Spec("x", "FP32", (-1, 0))], r"input 'x': shape \[-1, 0\], expected positive dimensions or -1"),
        ([Spec("x", "FP32", (-1,)), Spec("x", "FP32", (-1,))], "input 'x': named twice"),
    ],
    ids=str,
)
def test_an_unsound_signature_is_refused(inputs: list[Spec], message: str) -> None:
    """A model whose metadata cannot be served is refused before it serves."""
    with pytest.raises(ValueError, match=message):
        Signature.of(inputs, [Spec("y", "FP32", (-1,))])
