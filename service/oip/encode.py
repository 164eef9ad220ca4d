"""Inference answers: arrays to bytes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from service.oip.binary import to_blob
from service.oip.datatypes import Array
from service.oip.errors import ProtocolError
from service.oip.request import OutputRequest
from service.oip.signature import Signature, Tensor


def encode_infer(
    model: str,
    version: str,
    request_id: str,
    signature: Signature,
    arrays: Mapping[str, Array],
    wanted: tuple[OutputRequest, ...],
    binary_default: bool,
    parameters: Mapping[str, str | float | bool],
) -> tuple[bytes, int | None]:
    """The body of an answer, and the length of its JSON in bytes where raw tensors follow (else `None`).

    `arrays` has every wanted output under its name; with `wanted` empty, every output of the signature. `wanted` and
    `binary_default` are those of the request. An empty `request_id` is left out. In JSON a non-finite number is null.
    Raises `ProtocolError` 400 where bytes that are not UTF-8 are wanted as JSON.
    """
    outputs: list[dict[str, Any]] = []
    blobs: list[bytes] = []
    for name, binary in wanted or [(name, binary_default) for name in signature.outputs]:
        tensor = signature.outputs[name]
        array = arrays[name]
        entry: dict[str, Any] = {"name": name, "datatype": tensor.datatype.name, "shape": array.shape}
        if binary:
            blob = to_blob(array, tensor.datatype)
            entry["parameters"] = {"binary_data_size": len(blob)}
            blobs.append(blob)
        else:
            entry["data"] = _json_data(array, tensor)
        outputs.append(entry)
    document: dict[str, Any] = {"model_name": model, "model_version": version}
    if request_id:
        document["id"] = request_id
    if parameters:
        document["parameters"] = parameters
    document["outputs"] = outputs
    header = orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)
    if not blobs:
        return header, None
    return b"".join((header, *blobs)), len(header)


def _json_data(array: Array, tensor: Tensor) -> Array | list[str]:
    if tensor.datatype.wire is None:
        return [_text(element, tensor) for element in array.ravel().tolist()]
    flat = array.ravel()
    return flat if flat.dtype == tensor.datatype.dtype else flat.astype(tensor.datatype.dtype)


def _text(element: Any, tensor: Tensor) -> str:
    if isinstance(element, str):
        return element
    try:
        return bytes(element).decode()
    except UnicodeDecodeError:
        raise ProtocolError(
            400, f"output {tensor.name!r}: holds bytes that are not UTF-8, ask for it with binary_data: true"
        ) from None
