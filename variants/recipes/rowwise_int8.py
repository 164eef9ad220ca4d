"""Row-wise dynamic int8: a graph rewrite that keeps the speed of int8 and makes answers independent of the batch.

Dynamic quantization scales activations by their range over the whole batch, padding included, so a row's answer
depends on its neighbours. Here every row (every token, for text) has its own scale. In front of a product with constant
weights the rewrite puts

    scale = max(|x| over the last axis, 1e-6);  q = QuantizeLinear(x / scale, 1/127, zero point 128)
    y = MatMulIntegerToFloat(q, int8 weights, 1/127, scales per column) * scale

and it stores large constant embedding tables as int8 with one scale per table row. After what is never below -0.17
(GELU) or 0 (ReLU), max(x, 0.17) or max(x) stands for max(|x|): a pass over x is saved. Scales per row of activations
are those of LLM.int8() (Dettmers et al., 2022) and ZeroQuant (Yao et al., 2022). No calibration data is needed.

Products are `MatMul` and `Gemm` with constant weights, of any model. Convolutions stay fp32: with one scale per sample
they would have to run as `ConvInteger`, which takes four times as long as the fp32 convolution in onnxruntime 1.31 (3.1
against 0.7 ms for four of 32 channels on 28x28, without VNNI). `static_int8` is the form for them.

Weights of products have 7 bits, so that no sum saturates on any machine: see `variants.recipes.int8_values`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from variants.recipes.artifact import Artifact, RecipeError
from variants.recipes.int8_tables import Int8Tables
from variants.recipes.int8_values import LARGEST_IN_PRODUCTS, symmetric_int8
from variants.recipes.least_values import LeastValues
from variants.recipes.matrices import (
    CONTRIB_DOMAIN,
    MINIMUM_WEIGHTS,
    allow_contrib_operators,
    constant,
    is_large_matrix,
    load_in_matrix_form,
    opset_of,
    replace_nodes,
)

RECIPE = "rowwise-int8"

_STEP = "rowwise_step"
_LAST_AXIS = "rowwise_last_axis"
_ACTIVATION_ZERO = "rowwise_activation_zero"
_OPSET_OF_AXES_AS_INPUT = 18
SMALLEST_SCALE = 1e-6


def rowwise_int8(source: Artifact, path: Path, *, minimum_weights: int = MINIMUM_WEIGHTS) -> Artifact:
    """Write `source` with its constant matrices of at least `minimum_weights` elements in int8.

    Raises `RecipeError` where the graph has no such matrix.
    """
    model = load_in_matrix_form(source.path, minimum_weights)
    tables, products = Int8Tables(model, minimum_weights), _Products(model, minimum_weights)
    nodes = [
        made
        for node in model.graph.node
        for made in (products.nodes_for(node) if node.op_type == "MatMul" else tables.nodes_for(node))
    ]
    if not tables.rewritten + products.rewritten:
        raise RecipeError(f"no MatMul, Gemm or Gather with at least {minimum_weights} constant weights")
    replace_nodes(model, nodes, (*tables.constants, *products.constants))
    allow_contrib_operators(model)
    onnx.save(model, path)
    return source.next(path, RECIPE, "row-wise int8")


class _Products:
    """The rewrite of one graph's products. Inputs and weights that several products share are quantized once."""

    def __init__(self, model: onnx.ModelProto, minimum_weights: int) -> None:
        self.constants: list[onnx.TensorProto] = []
        self.rewritten = 0
        self._opset = opset_of(model)
        self._graph_constants = {tensor.name: tensor for tensor in model.graph.initializer}
        self._least = LeastValues(
            model.graph, {name: numpy_helper.to_array(held) for name, held in self._graph_constants.items()}
        )
        self._minimum_weights = minimum_weights
        self._quantized_inputs: set[str] = set()
        self._quantized_weights: set[str] = set()
        self._floors: set[str] = set()

    def nodes_for(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        """Return the nodes that take the place of `node`; itself where nothing is to be done."""
        if node.op_type == "MatMul" and self._is_large_matrix(node.input[1]):
            return self._product(node.input[0], node.input[1], node.output[0])
        return [node]

    def _is_large_matrix(self, name: str) -> bool:
        return is_large_matrix(self._graph_constants.get(name), self._minimum_weights)

    def _product(self, activations: str, weights: str, output: str) -> list[onnx.NodeProto]:
        self.rewritten += 1
        quantized, scale = f"{activations}_rowwise_quantized", f"{activations}_rowwise_scale"
        nodes = [] if activations in self._quantized_inputs else self._quantize(activations, quantized, scale)
        matrix = f"{weights}_int8"
        self._store_matrix(weights, matrix)
        unscaled = f"{output}_rowwise_unscaled"
        operands = [quantized, matrix, _STEP, f"{matrix}_scale", _ACTIVATION_ZERO, f"{matrix}_zero"]
        nodes.append(helper.make_node("MatMulIntegerToFloat", operands, [unscaled], domain=CONTRIB_DOMAIN))
        nodes.append(helper.make_node("Mul", [unscaled, scale], [output]))
        return nodes

    def _quantize(self, activations: str, quantized: str, scale: str) -> list[onnx.NodeProto]:
        if not self._quantized_inputs:
            self._store(_STEP, np.float32(1 / 127))
            self._store(_LAST_AXIS, np.array([-1], dtype=np.int64))
            self._store(_ACTIVATION_ZERO, np.uint8(128))
        self._quantized_inputs.add(activations)
        absolute, largest, scaled = (f"{activations}_rowwise_{part}" for part in ("absolute", "largest", "scaled"))
        least = self._least.of(activations)
        measured = absolute if least is None else activations
        if self._opset < _OPSET_OF_AXES_AS_INPUT:
            maximum = helper.make_node("ReduceMax", [measured], [largest], axes=[-1], keepdims=1)
        else:
            maximum = helper.make_node("ReduceMax", [measured, _LAST_AXIS], [largest], keepdims=1)
        return [
            *([helper.make_node("Abs", [activations], [absolute])] if least is None else []),
            maximum,
            helper.make_node("Max", [largest, self._floor(-(least or 0.0))], [scale]),
            helper.make_node("Div", [activations, scale], [scaled]),
            helper.make_node("QuantizeLinear", [scaled, _STEP, _ACTIVATION_ZERO], [quantized]),
        ]

    def _floor(self, needed: float) -> str:
        """Return the name of what scales are not below: `needed`, and more than nothing."""
        floor = np.float32(max(needed, SMALLEST_SCALE))
        name = f"rowwise_floor_{floor:g}"
        if name not in self._floors:
            self._floors.add(name)
            self._store(name, floor)
        return name

    def _store_matrix(self, weights: str, matrix: str) -> None:
        if matrix in self._quantized_weights:
            return
        self._quantized_weights.add(matrix)
        values, scales = symmetric_int8(self._array(weights), axis=0, largest=LARGEST_IN_PRODUCTS)
        self._store(matrix, values)
        self._store(f"{matrix}_scale", scales.reshape(-1))
        self._store(f"{matrix}_zero", np.zeros(scales.size, dtype=np.int8))

    def _array(self, name: str) -> NDArray[Any]:
        return numpy_helper.to_array(self._graph_constants[name])

    def _store(self, name: str, value: NDArray[Any] | np.generic) -> None:
        self.constants.append(constant(value, name))
