"""Graphs in the one form that recipes for weights read: constants as initializers, products with weights as MatMul.

Exporters write one and the same layer as `MatMul`, `MatMul` and `Add`, or `Gemm` with either operand transposed and
scaled; weights stand in initializers or in `Constant` nodes. Here all of them become `MatMul` with a constant second
operand [in, out], and `Add`, so that every recipe has one case to handle.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

MINIMUM_WEIGHTS = 1024
"""Smaller matrices (heads) stay fp32: they take no time and decide the answer."""

DEFAULT_DOMAINS = ("", "ai.onnx")
_CONSTANTS_ARE_NO_INPUTS = 4
CONTRIB_DOMAIN = "com.microsoft"
"""The domain of onnxruntime's own operators."""


def load_with_initializers(path: Path) -> onnx.ModelProto:
    """Return a model with all its constants as initializers."""
    model = onnx.load(path)
    separate_inputs_from_constants(model)
    held = {
        node.output[0]: value
        for node in model.graph.node
        if node.op_type == "Constant" and (value := attribute(node, "value", None)) is not None
    }
    constants = [constant(numpy_helper.to_array(value), name) for name, value in held.items()]
    replace_nodes(model, [node for node in model.graph.node if node.output[0] not in held], constants)
    return model


def load_in_matrix_form(path: Path, minimum_weights: int = MINIMUM_WEIGHTS) -> onnx.ModelProto:
    """Return a model with its constants as initializers and its large products with constant weights as `MatMul`."""
    model = load_with_initializers(path)
    form = _MatrixForm(model.graph, minimum_weights)
    replace_nodes(model, [made for node in model.graph.node for made in form.nodes_for(node)], form.constants)
    return model


def separate_inputs_from_constants(model: onnx.ModelProto) -> None:
    """Take constants out of the inputs, where formats before IR version 4 had to list them."""
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in constants]
    if len(inputs) < len(model.graph.input):
        del model.graph.input[:]
        model.graph.input.extend(inputs)
        model.ir_version = max(model.ir_version, _CONSTANTS_ARE_NO_INPUTS)


def replace_nodes(
    model: onnx.ModelProto, nodes: Iterable[onnx.NodeProto], constants: Iterable[onnx.TensorProto]
) -> None:
    """Give a graph these nodes, and `constants` beside those it has; constants that no node reads are dropped."""
    nodes = list(nodes)
    used = {name for node in nodes for name in names_read_by(node)} | {value.name for value in model.graph.output}
    kept = [constant for constant in (*model.graph.initializer, *constants) if constant.name in used]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)


def names_read_by(node: onnx.NodeProto) -> Iterator[str]:
    """Yield the tensors that a node reads, those that its branches and loop bodies read among them."""
    yield from node.input
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            for inner in graph.node:
                yield from names_read_by(inner)
            yield from (value.name for value in graph.output)


def is_large_matrix(tensor: onnx.TensorProto | None, minimum_weights: int = MINIMUM_WEIGHTS) -> bool:
    """Say whether a constant is a float32 matrix of at least `minimum_weights` elements."""
    return (
        tensor is not None
        and tensor.data_type == onnx.TensorProto.FLOAT
        and len(tensor.dims) == 2
        and tensor.dims[0] * tensor.dims[1] >= minimum_weights
    )


def constant(value: NDArray[Any] | np.generic, name: str) -> onnx.TensorProto:
    """Return an initializer with the value's own shape."""
    return numpy_helper.from_array(np.ascontiguousarray(value).reshape(np.shape(value)), name)


def attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    """Return a node's attribute, or `default` where it has none of that name."""
    for given in node.attribute:
        if given.name == name:
            return helper.get_attribute_value(given)
    return default


def opset_of(model: onnx.ModelProto) -> int:
    """Return the version of the standard operators that a model is written in."""
    return max((entry.version for entry in model.opset_import if entry.domain in DEFAULT_DOMAINS), default=1)


def allow_contrib_operators(model: onnx.ModelProto) -> None:
    """Declare that a model uses onnxruntime's own operators."""
    if all(entry.domain != CONTRIB_DOMAIN for entry in model.opset_import):
        model.opset_import.append(helper.make_opsetid(CONTRIB_DOMAIN, 1))


class _MatrixForm:
    """The rewrite of one graph."""

    def __init__(self, graph: onnx.GraphProto, minimum_weights: int) -> None:
        self.constants: list[onnx.TensorProto] = []
        self._minimum_weights = minimum_weights
        self._known = {tensor.name: tensor for tensor in graph.initializer}

    def nodes_for(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        """Return what takes the place of a node."""
        if (
            node.op_type == "Gemm"
            and is_large_matrix(self._known.get(node.input[1]), self._minimum_weights)
            and not attribute(node, "transA", 0)
        ):
            return self._product(node)
        return [node]

    def _product(self, gemm: onnx.NodeProto) -> list[onnx.NodeProto]:
        bias = gemm.input[2] if len(gemm.input) > 2 else ""
        weights = self._matrix(gemm)
        if not bias:
            return [helper.make_node("MatMul", [gemm.input[0], weights], [gemm.output[0]])]
        product, factor = f"{gemm.output[0]}_product", attribute(gemm, "beta", 1.0)
        nodes = [helper.make_node("MatMul", [gemm.input[0], weights], [product])]
        if factor != 1.0:
            self._keep(np.float32(factor), f"{gemm.output[0]}_beta")
            nodes.append(helper.make_node("Mul", [bias, f"{gemm.output[0]}_beta"], [f"{gemm.output[0]}_bias"]))
            bias = f"{gemm.output[0]}_bias"
        return [*nodes, helper.make_node("Add", [product, bias], [gemm.output[0]])]

    def _matrix(self, gemm: onnx.NodeProto) -> str:
        """Return the name of the weights as [in, out], with the product's factor in them."""
        given: str = gemm.input[1]
        factor, turned = attribute(gemm, "alpha", 1.0), attribute(gemm, "transB", 0)
        if factor == 1.0 and not turned:
            return given
        name = f"{given}{'_transposed' if turned else ''}{f'_times_{factor:g}' if factor != 1.0 else ''}"
        if name not in self._known:
            array = numpy_helper.to_array(self._known[given])
            self._keep((array.T if turned else array) * np.float32(factor), name)
        return name

    def _keep(self, value: NDArray[Any] | np.generic, name: str) -> None:
        self._known[name] = constant(value, name)
        self.constants.append(self._known[name])
