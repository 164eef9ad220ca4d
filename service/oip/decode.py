"""Inference requests over HTTP: bytes to arrays. Whatever is wrong with them is a `ProtocolError` 400 that names the
field.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from service.oip.binary import Blobs
from service.oip.datatypes import Array
from service.oip.errors import ProtocolError, malformed, shown
from service.oip.json_data import from_json
from service.oip.request import (
    NO_PARAMETERS,
    SCALARS,
    InferRequest,
    Inputs,
    Limits,
    OutputRequest,
    check_id,
    check_output,
    flag,
    names,
    refuse_unsupported,
    wants_binary,
)
from service.oip.signature import Signature


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
    check_id(request_id, limits)
    parameters = document.get("parameters")
    parameters = NO_PARAMETERS if parameters is None else _parameters("parameters", parameters)
    binary_default = wants_binary(parameters)

    inputs = _inputs(document.get("inputs"), signature, limits, blobs)
    if blobs is not None:
        blobs.finish()
    asked = document.get("outputs")
    outputs = () if asked is None else _outputs(asked, signature, binary_default)
    return InferRequest(request_id, parameters, inputs.arrays, inputs.rows, outputs, binary_default)


def _inputs(given: Any, signature: Signature, limits: Limits, blobs: Blobs | None) -> Inputs:
    if type(given) is not list or not given:
        raise malformed("inputs", f"a list with {names(signature.inputs)}", shown(given))
    inputs = Inputs(signature, limits)
    for entry in given:
        if type(entry) is not dict:
            raise malformed(f"inputs[{len(inputs.arrays)}]", "an object", shown(entry))
        name: Any = entry.get("name")
        inputs.keep(name, _input(entry, name, inputs, blobs))
    inputs.finish()
    return inputs


def _input(entry: dict[str, Any], name: Any, inputs: Inputs, blobs: Blobs | None) -> Array:
    shape: Any = entry.get("shape")
    tensor, elements = inputs.expect(name, entry.get("datatype"), shape)
    size_bytes = None
    parameters = entry.get("parameters")
    if parameters is not None:
        parameters = _parameters(f"input {name!r}: parameters", parameters)
        refuse_unsupported(f"input {name!r}", parameters)
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


def _outputs(asked: Any, signature: Signature, binary_default: bool) -> tuple[OutputRequest, ...]:
    if type(asked) is not list:
        raise malformed("outputs", "a list", shown(asked))
    wanted: dict[str, OutputRequest] = {}
    for index, entry in enumerate(asked):
        if type(entry) is not dict:
            raise malformed(f"outputs[{index}]", "an object", shown(entry))
        name: Any = entry.get("name")
        check_output(index, name, wanted, signature)
        binary = binary_default
        parameters = entry.get("parameters")
        if parameters is not None:
            parameters = _parameters(f"output {name!r}: parameters", parameters)
            refuse_unsupported(f"output {name!r}", parameters)
            binary = flag(f"output {name!r}: parameters.binary_data", parameters.get("binary_data"), binary_default)
        wanted[name] = OutputRequest(name, binary)
    return tuple(wanted.values())


def _parameters(field: str, given: Any) -> Mapping[str, Any]:
    if type(given) is not dict:
        raise malformed(field, "an object", shown(given))
    if not SCALARS.issuperset(map(type, given.values())):
        name, value = next((name, value) for name, value in given.items() if type(value) not in SCALARS)
        raise malformed(f"{field}[{shown(name)}]", "a string, number or boolean", shown(value))
    return given
