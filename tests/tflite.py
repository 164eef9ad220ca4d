"""A tiny LiteRT file, written with the classes of the format's schema: `logits = x @ weights + bias` for fixed rows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

IDENTIFIER = b"TFL3"


def save_tflite(path: Path, weights: NDArray[np.float32], rows: Sequence[int]) -> Path:
    """Write one signature `rows_<n>` for each number of rows; `weights` are [labels, columns] and held once."""
    labels, columns = weights.shape
    model = schema.ModelT()
    model.version = 3
    empty, held, bias = schema.BufferT(), schema.BufferT(), schema.BufferT()
    held.data = np.frombuffer(weights.tobytes(), np.uint8)
    bias.data = np.frombuffer(np.zeros(labels, np.float32).tobytes(), np.uint8)
    model.buffers = [empty, held, bias]
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.FULLY_CONNECTED
    model.operatorCodes = [code]
    model.subgraphs, model.signatureDefs = [], []
    for number, count in enumerate(rows):
        graph = schema.SubGraphT()
        graph.name = f"rows_{count}"
        graph.tensors = [
            _tensor("x", (count, columns), 0),
            _tensor("weights", weights.shape, 1),
            _tensor("bias", (labels,), 2),
            _tensor("logits", (count, labels), 0),
        ]
        graph.inputs, graph.outputs = [0], [3]
        step = schema.OperatorT()
        step.opcodeIndex, step.inputs, step.outputs = 0, [0, 1, 2], [3]
        step.builtinOptionsType = schema.BuiltinOptions.FullyConnectedOptions
        step.builtinOptions = schema.FullyConnectedOptionsT()
        graph.operators = [step]
        model.subgraphs.append(graph)
        signature = schema.SignatureDefT()
        signature.signatureKey, signature.subgraphIndex = f"rows_{count}", number
        signature.inputs, signature.outputs = [_named("x", 0)], [_named("logits", 3)]
        model.signatureDefs.append(signature)
    builder = flatbuffers.Builder(0)
    builder.Finish(model.Pack(builder), IDENTIFIER)
    path.write_bytes(bytes(builder.Output()))
    return path


def _tensor(name: str, shape: Sequence[int], buffer: int) -> schema.TensorT:
    tensor = schema.TensorT()
    tensor.name, tensor.shape, tensor.buffer = name, list(shape), buffer
    tensor.type = schema.TensorType.FLOAT32
    return tensor


def _named(name: str, index: int) -> schema.TensorMapT:
    entry = schema.TensorMapT()
    entry.name, entry.tensorIndex = name, index
    return entry
