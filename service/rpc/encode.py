"""Inference answers over gRPC: arrays to messages."""

from __future__ import annotations

from collections.abc import Mapping

from service.oip.binary import to_blob
from service.oip.datatypes import Array
from service.oip.request import OutputRequest
from service.oip.signature import Signature
from service.rpc.decode import CONTENTS
from service.rpc.open_inference_pb2 import ModelInferResponse


def encode_message(
    model: str,
    version: str,
    request_id: str,
    signature: Signature,
    arrays: Mapping[str, Array],
    wanted: tuple[OutputRequest, ...],
    binary: bool,
    parameters: Mapping[str, str | float | bool],
) -> ModelInferResponse:
    """The message of an answer.

    `arrays` has every wanted output under its name; with `wanted` empty, every output of the signature. All of them are
    raw where `binary` says so, and where one has no typed form.
    """
    message = ModelInferResponse(model_name=model, model_version=version, id=request_id)
    for name, value in parameters.items():
        parameter = message.parameters[name]
        if isinstance(value, str):
            parameter.string_param = value
        elif isinstance(value, bool):
            parameter.bool_param = value
        else:
            parameter.double_param = value
    tensors = [signature.outputs[output.name] for output in wanted] if wanted else list(signature.outputs.values())
    raw = binary or any(tensor.datatype.name not in CONTENTS for tensor in tensors)
    for tensor in tensors:
        array, datatype = arrays[tensor.name], tensor.datatype
        output = message.outputs.add(name=tensor.name, datatype=datatype.name, shape=array.shape)
        if raw:
            message.raw_output_contents.append(to_blob(array, datatype))
            continue
        elements = array.ravel().tolist()
        if datatype.wire is None:
            elements = [element.encode() if isinstance(element, str) else element for element in elements]
        getattr(output.contents, CONTENTS[datatype.name]).extend(elements)
    return message
