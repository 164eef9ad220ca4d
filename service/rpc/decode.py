"""Inference requests over gRPC: messages to arrays. What is wrong is a `ProtocolError` that names the field."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from service.exchange import SMALL_BYTES
from service.oip.binary import from_blob
from service.oip.datatypes import Array
from service.oip.errors import ProtocolError, malformed
from service.oip.json_data import from_contents
from service.oip.request import (
    NO_PARAMETERS,
    InferRequest,
    Inputs,
    Limits,
    OutputRequest,
    check_id,
    check_output,
    names,
    refuse_unsupported,
    wants_binary,
)
from service.oip.signature import Signature
from service.rpc.open_inference_pb2 import InferParameter, ModelInferRequest, ModelRepositoryParameter

CONTENTS: Mapping[str, str] = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
"""By datatype, the field that has its elements; the others travel raw alone."""

MOST_FIELDS = 1000


def check_weight(message: bytes, limit_bytes: int) -> None:
    """Bound what a message unfolds to, before it is parsed: an element of two bytes may become an object of a hundred.

    Raw tensors stay what they are. All the rest may be `limit_bytes`, and its fields are at most `MOST_FIELDS`. Raises
    `ProtocolError` 413, and 400 for what is no message.
    """
    if len(message) <= min(SMALL_BYTES, limit_bytes):
        return
    offset, fields, raw_bytes = 0, 0, 0
    while offset < len(message):
        tag, offset = _varint(message, offset)
        match tag & 7:
            case 0:
                _, offset = _varint(message, offset)
            case 1:
                offset += 8
            case 2:
                size_bytes, offset = _varint(message, offset)
                offset += size_bytes
                if tag >> 3 == ModelInferRequest.RAW_INPUT_CONTENTS_FIELD_NUMBER:
                    raw_bytes += size_bytes
            case 5:
                offset += 4
            case kind:
                raise _no_message(f"a field of wire type {kind}")
        fields += 1
        if fields > MOST_FIELDS:
            raise ProtocolError(413, f"message: expected at most {MOST_FIELDS} fields, got more")
    other_bytes = len(message) - raw_bytes
    if other_bytes > limit_bytes:
        expected = f"at most {limit_bytes} bytes besides raw tensors"
        raise ProtocolError(413, f"message: expected {expected}, got {other_bytes}; send raw tensors")


def decode_message(message: ModelInferRequest, signature: Signature, limits: Limits) -> InferRequest:
    """Decode a request. Its outputs are wanted as it has its inputs, raw or typed, unless a parameter says so.

    Raises `ProtocolError` 400.
    """
    check_id(message.id, limits)
    parameters = parameters_of(message.parameters)
    given, blobs = message.inputs, message.raw_input_contents
    if not given:
        raise malformed("inputs", names(signature.inputs), "none")
    if blobs and len(blobs) != len(given):
        raise malformed("raw_input_contents", f"{len(given)}, one for each input, or none", str(len(blobs)))
    inputs = Inputs(signature, limits)
    for index, entry in enumerate(given):
        name = entry.name
        inputs.keep(name, _input(entry, inputs, blobs[index] if blobs else None, index))
    inputs.finish()
    binary = wants_binary(parameters, default=bool(blobs))
    wanted: dict[str, OutputRequest] = {}
    for index, output in enumerate(message.outputs):
        check_output(index, output.name, wanted, signature)
        if output.parameters:
            refuse_unsupported(f"output {output.name!r}", output.parameters)
        wanted[output.name] = OutputRequest(output.name, binary)
    return InferRequest(message.id, parameters, inputs.arrays, inputs.rows, tuple(wanted.values()), binary)


def parameters_of(given: Mapping[str, InferParameter] | Mapping[str, ModelRepositoryParameter]) -> Mapping[str, Any]:
    """Parameters as JSON would have them; one without a value is not there."""
    if not given:
        return NO_PARAMETERS
    chosen = ((name, value, value.WhichOneof("parameter_choice")) for name, value in given.items())
    return {name: getattr(value, choice) for name, value, choice in chosen if choice is not None}


def _input(entry: ModelInferRequest.InferInputTensor, inputs: Inputs, blob: bytes | None, index: int) -> Array:
    shape = list(entry.shape)
    tensor, elements = inputs.expect(entry.name, entry.datatype, shape)
    if entry.parameters:
        refuse_unsupported(f"input {entry.name!r}", entry.parameters)
    if blob is not None:
        if entry.HasField("contents"):
            raise malformed(f"input {entry.name!r}", "either contents or raw_input_contents", "both")
        return from_blob(memoryview(blob), tensor, shape, elements, f"raw_input_contents[{index}]: bytes")
    field = CONTENTS.get(entry.datatype)
    if field is None:
        raise malformed(f"input {entry.name!r}", f"raw_input_contents, as {entry.datatype} has no other form", "none")
    if not entry.HasField("contents"):
        raise malformed(f"input {entry.name!r}", f"raw_input_contents or contents.{field}", "neither")
    return from_contents(list(getattr(entry.contents, field)), tensor, shape, elements, f"contents.{field}")


def _varint(message: bytes, offset: int) -> tuple[int, int]:
    """The number that begins at an offset, and where it has ended."""
    number = shift = 0
    for octet in message[offset : offset + 10]:
        number |= (octet & 0x7F) << shift
        shift += 7
        if octet < 0x80:
            return number, offset + shift // 7
    raise _no_message("a number that does not end")


def _no_message(got: str) -> ProtocolError:
    return malformed("message", "a ModelInferRequest", got)
