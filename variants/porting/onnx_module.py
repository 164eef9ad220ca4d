"""An ONNX graph as a torch module, so that what torch can export, every float variant of a revision can be."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from torch import Tensor

from variants.porting.operator import Operator, UnsupportedError, Value
from variants.porting.operators import OPERATORS

_MOST_NUMBERS = 64
"""Whole numbers in constants of up to so many may be shapes and are known as numbers; larger ones are tensors."""


class _Node(NamedTuple):
    operator: Operator
    inputs: tuple[str, ...]
    output: str
    attributes: Mapping[str, Any]


class OnnxModule(torch.nn.Module):
    """Takes the graph's inputs in order and returns its outputs in order, both as tensors.

    Raises `UnsupportedError` naming an operator that has no translation.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        graph = onnx.load(path).graph
        self._buffer_names: dict[str, str] = {}
        self._numbers: dict[str, Value] = {}
        for tensor in graph.initializer:
            self._keep(tensor.name, numpy_helper.to_array(tensor))
        given = set(self._buffer_names) | set(self._numbers)
        self.input_names = tuple(value.name for value in graph.input if value.name not in given)
        self.output_names = tuple(value.name for value in graph.output)
        self._nodes = [node for found in graph.node if (node := self._node(found)) is not None]

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Run the graph."""
        values: dict[str, Value] = {"": None, **self._numbers, **dict(zip(self.input_names, inputs, strict=True))}
        values |= {name: getattr(self, buffer) for name, buffer in self._buffer_names.items()}
        for node in self._nodes:
            arguments = [values[name] for name in node.inputs]
            values[node.output] = node.operator(arguments, node.attributes)
        return tuple(values[name] for name in self.output_names)

    def _node(self, node: onnx.NodeProto) -> _Node | None:
        attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
        if node.op_type == "Constant":
            (value,) = attributes.values()
            array = numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else np.asarray(value)
            self._keep(node.output[0], array)
            return None
        kind = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
        if kind not in OPERATORS or len(node.output) > 1:
            raise UnsupportedError(f"torch has no translation of the operator {kind}")
        return _Node(OPERATORS[kind], tuple(node.input), node.output[0], attributes)

    def _keep(self, name: str, array: NDArray[Any]) -> None:
        """Constants are numbers where they may be shapes, else buffers."""
        if array.dtype == np.int64 and array.size <= _MOST_NUMBERS and array.ndim <= 1:
            self._numbers[name] = array.tolist()
            return
        self._buffer_names[name] = buffer = f"constant_{len(self._buffer_names)}"
        self.register_buffer(buffer, torch.from_numpy(np.array(array)))
