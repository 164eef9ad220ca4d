"""Whatever bytes come, decoding gives a sound request or a 400."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from service.oip.datatypes import DATATYPES
from service.oip.decode import decode_infer
from service.oip.errors import ProtocolError
from service.oip.request import Limits
from service.oip.signature import Signature
from tests.oip.specs import OUTPUTS, Spec

LIMITS = Limits(max_rows=8, max_elements=64)
SIGNATURES = {name: Signature.of([Spec("x", name, (-1, 2))], OUTPUTS) for name in DATATYPES}

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.sampled_from(["name", "data"]), inner)),
    max_leaves=6,
)
PLACES = (
    ("id",),
    ("parameters",),
    ("parameters", "binary_data_output"),
    ("inputs",),
    ("inputs", 0),
    ("inputs", 0, "name"),
    ("inputs", 0, "shape"),
    ("inputs", 0, "shape", 0),
    ("inputs", 0, "shape", 1),
    ("inputs", 0, "datatype"),
    ("inputs", 0, "data"),
    ("inputs", 0, "data", 0),
    ("inputs", 0, "parameters"),
    ("inputs", 0, "parameters", "binary_data_size"),
    ("outputs",),
    ("outputs", 0),
    ("outputs", 0, "name"),
    ("outputs", 0, "parameters"),
)
MUTATIONS = st.tuples(st.sampled_from(PLACES), JSON)


def survives(body: bytes, header_length: int | None, signature: Signature) -> None:
    """Decode, and hold what comes out against the promises of `InferRequest`."""
    try:
        request = decode_infer(body, header_length, signature, LIMITS)
    except ProtocolError as error:
        assert (error.status, "\n" in error.message, len(error.message) < 1000) == (400, False, True)  # noqa: PT017 - either outcome is sound
        return
    for name, array in request.inputs.items():
        tensor = signature.inputs[name]
        assert array.dtype == tensor.datatype.dtype
        assert (array.shape[0], array.shape[1:]) == (request.rows, tensor.shape[1:])
        assert 1 <= request.rows <= LIMITS.max_rows
        if array.dtype.kind == "f":
            assert np.isfinite(array).all()


def blob(datatype: str) -> bytes:
    """Two sound raw elements."""
    wire = DATATYPES[datatype].wire
    return b"\x01\x00\x00\x00a" * 2 if wire is None else b"\x00" * (2 * wire.itemsize)


def sound(datatype: str, binary: bool) -> dict[str, Any]:
    """A request that decodes, its raw data being `blob`."""
    samples = {"i": 1, "u": 1, "f": 0.5, "b": True, "O": "a"}
    entry: dict[str, Any] = {"name": "x", "shape": [1, 2], "datatype": datatype}
    if binary:
        entry["parameters"] = {"binary_data_size": len(blob(datatype))}
    else:
        entry |= {"data": [samples[DATATYPES[datatype].dtype.kind]] * 2, "parameters": {}}
    return {"id": "r", "parameters": {}, "inputs": [entry], "outputs": [{"name": "label", "parameters": {}}]}


@given(st.sampled_from(sorted(DATATYPES)), st.booleans())
def test_the_requests_to_be_damaged_are_sound(datatype: str, binary: bool) -> None:
    """What the other tests start from decodes."""
    header = orjson.dumps(sound(datatype, binary))
    body, length = (header + blob(datatype), len(header)) if binary else (header, None)
    assert decode_infer(body, length, SIGNATURES[datatype], LIMITS).rows == 1


@given(st.binary(max_size=200), st.none() | st.integers(-5, 205))
def test_random_bytes(body: bytes, header_length: int | None) -> None:
    """Noise of any kind, with any header length."""
    survives(body, header_length, SIGNATURES["FP32"])


@given(JSON)
def test_random_json(document: Any) -> None:
    """JSON of any shape."""
    survives(orjson.dumps(document), None, SIGNATURES["FP32"])


@settings(max_examples=400)
@given(st.sampled_from(sorted(DATATYPES)), st.booleans(), st.lists(MUTATIONS, max_size=3))
def test_mutated_requests(datatype: str, binary: bool, mutations: list[tuple[tuple[str | int, ...], Any]]) -> None:
    """A sound request with any of its places overwritten by any JSON."""
    document = sound(datatype, binary)
    for path, value in mutations:
        place: Any = document
        for step in path[:-1]:
            try:
                place = place[step]
            except (TypeError, KeyError, IndexError):
                break
        else:
            last: Any = path[-1]
            if isinstance(place, dict) or (isinstance(place, list) and place and last == 0):
                place[last] = value
    header = orjson.dumps(document, option=orjson.OPT_NON_STR_KEYS)
    if binary:
        survives(header + blob(datatype), len(header), SIGNATURES[datatype])
    else:
        survives(header, None, SIGNATURES[datatype])


@given(st.sampled_from(sorted(DATATYPES)), st.binary(max_size=40), st.integers(0, 40))
def test_random_raw_tensors(datatype: str, content: bytes, size_bytes: int) -> None:
    """A sound header before any raw bytes, with any declared size."""
    document = sound(datatype, binary=True)
    document["inputs"][0]["parameters"]["binary_data_size"] = size_bytes
    header = orjson.dumps(document)
    survives(header + content, len(header), SIGNATURES[datatype])


@given(st.booleans(), st.data())
def test_damaged_requests(binary: bool, data: st.DataObject) -> None:
    """A sound request cut short, or with one byte changed."""
    document = sound("FP32", binary)
    header = orjson.dumps(document)
    body = bytearray(header + b"\x00" * (8 if binary else 0))
    place = data.draw(st.integers(0, len(body) - 1))
    if data.draw(st.booleans()):
        del body[place:]
    else:
        body[place] = data.draw(st.integers(0, 255))
    survives(bytes(body), len(header) if binary else None, SIGNATURES["FP32"])
