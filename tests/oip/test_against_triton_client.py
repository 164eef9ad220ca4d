"""tritonclient as the independent codec: what it sends is decoded, what is encoded it reads."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import orjson
import pytest
import tritonclient.http as triton
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

from service.oip.compression import compress, decompress
from service.oip.datatypes import DATATYPES, Array, datatype_of
from service.oip.decode import decode_infer
from service.oip.encode import encode_infer
from service.oip.request import InferRequest, Limits, OutputRequest
from service.oip.signature import Signature
from tests.oip.specs import OUTPUTS, Spec, one_input

LIMITS = Limits(max_rows=64, max_elements=4096)
SHAPES = arrays_of.array_shapes(min_dims=1, max_dims=3, min_side=1, max_side=5)


@st.composite
def tensors(draw: st.DrawFn) -> tuple[str, Array]:
    """A datatype and a finite array as tritonclient wants it."""
    datatype = draw(st.sampled_from(sorted(DATATYPES)))
    shape = draw(SHAPES)
    if datatype == "BYTES":
        elements = st.text(st.characters(exclude_categories=["Cs"]), max_size=12).map(str.encode)
        count = int(np.prod(shape))
        array = np.empty(count, dtype=object)
        array[:] = draw(st.lists(elements, min_size=count, max_size=count))
        return datatype, array.reshape(shape)
    dtype = DATATYPES[datatype].dtype
    if dtype.kind != "f":
        return datatype, draw(arrays_of.arrays(dtype, shape))
    floats = arrays_of.from_dtype(dtype, allow_nan=False, allow_infinity=False)
    if datatype == "BF16":
        floats = floats.filter(lambda value: abs(value) < 1e38)
    array = draw(arrays_of.arrays(dtype, shape, elements=floats))
    return datatype, array.astype(ml_dtypes.bfloat16) if datatype == "BF16" else array


def signature_of(datatype: str, array: Array) -> Signature:
    tensor = Spec("t", datatype, (-1, *array.shape[1:]))
    return Signature.of([tensor], [tensor])


def sent(array: Array, datatype: str, binary: bool, **more: Any) -> tuple[bytes, int | None]:
    tensor = triton.InferInput("t", list(array.shape), datatype)
    tensor.set_data_from_numpy(array, binary_data=binary)
    body, length = triton.InferenceServerClient.generate_request_body([tensor], **more)
    return body, length


def ours(array: Array) -> Array:
    """BF16 is held as float32 here."""
    return array.astype(np.float32) if array.dtype == ml_dtypes.bfloat16 else array


@given(tensors(), st.booleans())
def test_what_the_client_sends_is_what_arrives(tensor: tuple[str, Array], binary: bool) -> None:
    """Every datatype and shape, raw and as JSON, keeps its values, dtype and shape."""
    datatype, array = tensor
    # The client itself refuses BF16 as JSON.
    body, length = sent(array, datatype, binary or datatype == "BF16")
    request = decode_infer(body, length, signature_of(datatype, array), LIMITS)
    np.testing.assert_array_equal(request.inputs["t"], ours(array))
    assert request.inputs["t"].dtype == DATATYPES[datatype].dtype
    assert request.inputs["t"].shape == array.shape
    assert not request.inputs["t"].flags.writeable
    assert request.rows == array.shape[0]
    assert request.binary_default


@given(tensors(), st.booleans())
def test_what_is_answered_is_what_the_client_reads(tensor: tuple[str, Array], binary: bool) -> None:
    """Every datatype and shape, raw and as JSON, keeps its values and shape."""
    datatype, array = tensor
    signature = signature_of(datatype, array)
    wanted = (OutputRequest("t", binary),)
    body, length = encode_infer("m", "v", "r", signature, {"t": ours(array)}, wanted, False, {})
    read = triton.InferenceServerClient.parse_response_body(body, header_length=length)
    answered = read.as_numpy("t")
    if datatype == "BYTES" and not binary:
        answered = np.array([text.encode() for text in answered.ravel()], dtype=object).reshape(answered.shape)
    np.testing.assert_array_equal(answered, array)
    assert (read.get_response()["id"], read.get_response()["model_version"]) == ("r", "v")


@given(arrays_of.arrays(np.float32, SHAPES, elements=st.floats(-(2.0**99), 2.0**99, width=32)))
def test_json_and_raw_bfloat16_are_the_same_numbers(array: Array) -> None:
    """Rounding to BF16 does not depend on the encoding, and is that of ml_dtypes."""
    document = {"inputs": [{"name": "t", "shape": array.shape, "datatype": "BF16", "data": array.ravel().tolist()}]}
    decoded = decode_infer(orjson.dumps(document), None, signature_of("BF16", array), LIMITS).inputs["t"]
    np.testing.assert_array_equal(decoded, array.astype(ml_dtypes.bfloat16).astype(np.float32))


def infer(**more: Any) -> InferRequest:
    body, length = sent(np.array([[1.0, 2.0]], dtype=np.float32), "FP32", True, **more)
    tensor = Spec("t", "FP32", (-1, 2))
    return decode_infer(body, length, Signature.of([tensor], OUTPUTS), LIMITS)


def test_the_clients_own_fields_arrive() -> None:
    """Id, priority, timeout, sequence and custom parameters stand where the client puts them."""
    request = infer(request_id="r-1", priority=2, timeout=5000, sequence_id=7, parameters={"slo_ms": 20})
    assert request.id == "r-1"
    assert dict(request.parameters) == {
        "priority": 2,
        "timeout": 5000,
        "sequence_id": 7,
        "sequence_start": False,
        "sequence_end": False,
        "slo_ms": 20,
        "binary_data_output": True,
    }


def test_the_clients_requested_outputs_arrive() -> None:
    """Outputs are wanted raw unless the client says otherwise."""
    outputs = [triton.InferRequestedOutput("scores"), triton.InferRequestedOutput("label", binary_data=False)]
    request = infer(outputs=outputs)
    assert request.outputs == (OutputRequest("scores", binary=True), OutputRequest("label", binary=False))
    assert not request.binary_default


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_the_client_reads_compressed_answers(encoding: str) -> None:
    """Both codings of tritonclient, with raw tensors behind the JSON."""
    signature = one_input("FP32", 2)
    scores = np.arange(2000, dtype=np.float32).reshape(1000, 2)
    wanted = (OutputRequest("scores", binary=True),)
    body, length = encode_infer("m", "v", "", signature, {"scores": scores}, wanted, False, {})
    packed, said = compress(body, encoding)
    assert said == encoding
    assert len(packed) < len(body)
    read = triton.InferenceServerClient.parse_response_body(packed, header_length=length, content_encoding=encoding)
    np.testing.assert_array_equal(read.as_numpy("scores"), scores)
    assert decompress(packed, encoding, len(body)) == body


def test_datatypes_of_arrays_are_those_of_the_client() -> None:
    """Numpy dtypes map to the same datatype names, and unknown ones to none."""
    names = [name for name in DATATYPES if name != "BF16"]
    assert [datatype_of(DATATYPES[name].dtype) for name in names] == names
    assert datatype_of(np.dtype("U4")) == "BYTES"
    with pytest.raises(ValueError, match="complex128"):
        datatype_of(np.dtype("complex128"))
