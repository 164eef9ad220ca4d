"""Inference requests: bytes to arrays. Whatever is wrong with them is a `ProtocolError` 400 that names the field."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import orjson

from service.oip.binary import Blobs
from service.oip.datatypes import Array
from service.oip.errors import ProtocolError, malformed, shown
from service.oip.json_data import from_json
from service.oip.signature import ANY_LENGTH, Signature, Tensor

NO_PARAMETERS: Mapping[str, Any] = MappingProxyType({})

_SCALARS = frozenset({str, int, float, bool})
_NOT_SUPPORTED = ("shared_memory_region", "classification")


class Limits(NamedTuple):
    """Bounds on one request. The body's size is bounded before it is decoded."""

    max_rows: int = 1024
    max_elements: int = 16_777_216
    """Of one tensor."""
    max_id_characters: int = 256


class OutputRequest(NamedTuple):
    """An output that the caller wants, and whether as raw bytes."""

    name: str
    binary: bool


class InferRequest(NamedTuple):
    """A decoded request. `rows` is the first dimension of every input.

    `inputs` are read-only, aligned, C-contiguous arrays of the datatype's dtype, finite where floating-point; they may
    share memory with the body. `outputs` is empty where the caller names none: it gets all of them, as raw bytes where
    `binary_default` says so. `id` is empty where the caller gave none.
    """

    id: str
    parameters: Mapping[str, Any]
    inputs: dict[str, Array]
    rows: int
    outputs: tuple[OutputRequest, ...]
    binary_default: bool


def decode_infer(
    body: bytes | memoryview, header_length: int | None, signature: Signature, limits: Limits
) -> InferRequest:
    """Decode the body of `POST /v2/models/{m}/infer`.

    `header_length` is the value of `Inference-Header-Content-Length`, the bytes of JSON before the raw tensors; `None`
    where the body is JSON alone. Optional fields may be null. Unknown fields are ignored, unknown tensors are not.
    Raises `ProtocolError` 400.
    """
    if header_length is None:
        header: bytes | memoryview = body
        blobs = None
    else:
        if not 0 < header_length <= len(body):
            raise malformed(
                "header Inference-Header-Content-Length",
                f"1 to {len(body)}, the length of the body in bytes",
                str(header_length),
            )
        view = memoryview(body)
        header = view[:header_length]
        blobs = Blobs(view[header_length:])
    try:
        document = orjson.loads(header)
    except orjson.JSONDecodeError as error:
        raise malformed("body", "JSON", str(error)[:200]) from None
    if type(document) is not dict:
        raise malformed("body", "a JSON object", shown(document))

    request_id = document.get("id")
    if request_id is None:
        request_id = ""
    elif type(request_id) is not str or len(request_id) > limits.max_id_characters:
        raise malformed("id", f"a string of at most {limits.max_id_characters} characters", shown(request_id))
    parameters = document.get("parameters")
    parameters = NO_PARAMETERS if parameters is None else _parameters("parameters", parameters)
    binary_default = _flag("parameters.binary_data_output", parameters.get("binary_data_output"), False)

    inputs, rows = _inputs(document.get("inputs"), signature, limits, blobs)
    if blobs is not None:
        blobs.finish()
    asked = document.get("outputs")
    outputs = () if asked is None else _outputs(asked, signature, binary_default)
    return InferRequest(request_id, parameters, inputs, rows, outputs, binary_default)


def _inputs(given: Any, signature: Signature, limits: Limits, blobs: Blobs | None) -> tuple[dict[str, Array], int]:
    expected = signature.inputs
    if type(given) is not list or not given:
        raise malformed("inputs", f"a list with {_names(expected)}", shown(given))
    arrays: dict[str, Array] = {}
    rows = 0
    for entry in given:
        if type(entry) is not dict:
            raise malformed(f"inputs[{len(arrays)}]", "an object", shown(entry))
        name = entry.get("name")
        if type(name) is not str or name not in expected:
            raise malformed(f"inputs[{len(arrays)}].name", _names(expected), shown(name))
        if name in arrays:
            raise malformed(f"input {name!r}", "it once", "it twice")
        array = _input(entry, expected[name], limits, blobs)
        if not arrays:
            rows = len(array)
        elif len(array) != rows:
            first = next(iter(arrays))
            raise malformed(f"input {name!r}: shape[0]", f"{rows} rows as in input {first!r}", str(len(array)))
        arrays[name] = array
    if len(arrays) != len(expected):
        missing = next(name for name in expected if name not in arrays)
        raise malformed("inputs", _names(expected), f"no input {missing!r}")
    return arrays, rows


def _input(entry: dict[str, Any], tensor: Tensor, limits: Limits, blobs: Blobs | None) -> Array:
    name, datatype = tensor.name, tensor.datatype
    if entry.get("datatype") != datatype.name:
        raise malformed(f"input {name!r}: datatype", repr(datatype.name), shown(entry.get("datatype")))
    shape: Any = entry.get("shape")
    elements = _elements(shape, tensor, limits)
    size_bytes = None
    parameters = entry.get("parameters")
    if parameters is not None:
        parameters = _parameters(f"input {name!r}: parameters", parameters)
        _refuse_unsupported(f"input {name!r}", parameters)
        size_bytes = parameters.get("binary_data_size")
    data = entry.get("data")
    if size_bytes is None:
        if data is None:
            raise malformed(f"input {name!r}", "data or parameters.binary_data_size", "neither")
        return from_json(data, tensor, shape, elements)
    if data is not None:
        raise malformed(f"input {name!r}", "either data or parameters.binary_data_size", "both")
    if blobs is None:
        raise ProtocolError(
            400, f"input {name!r}: binary_data_size needs the header Inference-Header-Content-Length, got none"
        )
    return blobs.take(tensor, shape, elements, size_bytes)


def _elements(shape: Any, tensor: Tensor, limits: Limits) -> int:
    """The number of elements of a sound shape."""
    spec = tensor.shape
    if type(shape) is not list or len(shape) != len(spec):
        got = (
            str(shape)[:80]
            if type(shape) is list and len(shape) < 9 and _SCALARS.issuperset(map(type, shape))
            else shown(shape)
        )
        raise malformed(f"input {tensor.name!r}: shape", f"{list(spec)} (-1: any length)", got)
    elements = 1
    for axis, (length, wanted) in enumerate(zip(shape, spec, strict=True)):
        if type(length) is not int or length < 1 or wanted not in (length, ANY_LENGTH):
            what = "a positive integer" if wanted == ANY_LENGTH else str(wanted)
            raise malformed(f"input {tensor.name!r}: shape[{axis}]", what, shown(length))
        elements *= length
    if shape[0] > limits.max_rows:
        raise malformed(f"input {tensor.name!r}: shape[0]", f"at most {limits.max_rows} rows", str(shape[0]))
    if elements > limits.max_elements:
        raise malformed(f"input {tensor.name!r}: shape", f"at most {limits.max_elements} elements", str(elements)[:80])
    return elements


def _outputs(asked: Any, signature: Signature, binary_default: bool) -> tuple[OutputRequest, ...]:
    if type(asked) is not list:
        raise malformed("outputs", "a list", shown(asked))
    wanted: dict[str, OutputRequest] = {}
    for index, entry in enumerate(asked):
        if type(entry) is not dict:
            raise malformed(f"outputs[{index}]", "an object", shown(entry))
        name = entry.get("name")
        if type(name) is not str or name not in signature.outputs:
            raise malformed(f"outputs[{index}].name", _names(signature.outputs), shown(name))
        if name in wanted:
            raise malformed(f"output {name!r}", "it once", "it twice")
        binary = binary_default
        parameters = entry.get("parameters")
        if parameters is not None:
            parameters = _parameters(f"output {name!r}: parameters", parameters)
            _refuse_unsupported(f"output {name!r}", parameters)
            binary = _flag(f"output {name!r}: parameters.binary_data", parameters.get("binary_data"), binary_default)
        wanted[name] = OutputRequest(name, binary)
    return tuple(wanted.values())


def _parameters(field: str, given: Any) -> Mapping[str, Any]:
    if type(given) is not dict:
        raise malformed(field, "an object", shown(given))
    if not _SCALARS.issuperset(map(type, given.values())):
        name, value = next((name, value) for name, value in given.items() if type(value) not in _SCALARS)
        raise malformed(f"{field}[{shown(name)}]", "a string, number or boolean", shown(value))
    return given


def _flag(field: str, value: Any, default: bool) -> bool:
    if value is None:
        return default
    if type(value) is not bool:
        raise malformed(field, "true or false", shown(value))
    return value


def _refuse_unsupported(field: str, parameters: Mapping[str, Any]) -> None:
    for name in _NOT_SUPPORTED:
        if name in parameters:
            raise ProtocolError(400, f"{field}: parameter {name} is not supported")


def _names(tensors: Mapping[str, Tensor]) -> str:
    return " and ".join(repr(name) for name in tensors) if len(tensors) < 9 else f"{len(tensors)} known tensors"
