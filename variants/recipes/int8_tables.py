"""Embedding tables in int8, one scale for each row of the table; what is looked up is scaled back to float32."""

from __future__ import annotations

import onnx
from onnx import helper, numpy_helper

from variants.recipes.int8_values import symmetric_int8
from variants.recipes.matrices import attribute, constant, is_large_matrix


class Int8Tables:
    """The rewrite of one graph's lookups in constant tables of at least `minimum_weights` elements."""

    def __init__(self, model: onnx.ModelProto, minimum_weights: int) -> None:
        self.constants: list[onnx.TensorProto] = []
        self.rewritten = 0
        self._graph_constants = {tensor.name: tensor for tensor in model.graph.initializer}
        self._minimum_weights = minimum_weights
        self._stored: set[str] = set()

    def nodes_for(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        """Return the nodes that take the place of `node`; itself where it looks nothing up in a large table."""
        if node.op_type != "Gather" or attribute(node, "axis", 0) != 0:
            return [node]
        table = self._graph_constants.get(node.input[0])
        return self._lookup(node, table) if table and is_large_matrix(table, self._minimum_weights) else [node]

    def _lookup(self, node: onnx.NodeProto, table: onnx.TensorProto) -> list[onnx.NodeProto]:
        self.rewritten += 1
        rows, (output,) = node.input[1], node.output
        stored = f"{table.name}_int8_rows"
        if stored not in self._stored:
            self._stored.add(stored)
            values, scales = symmetric_int8(numpy_helper.to_array(table), axis=1)
            self.constants += [constant(values, stored), constant(scales, f"{stored}_scale")]
        chosen, as_float, scale = (f"{output}_row_{part}" for part in ("int8", "float", "scale"))
        return [
            helper.make_node("Gather", [stored, rows], [chosen], axis=0),
            helper.make_node("Cast", [chosen], [as_float], to=onnx.TensorProto.FLOAT),
            helper.make_node("Gather", [f"{stored}_scale", rows], [scale], axis=0),
            helper.make_node("Mul", [as_float, scale], [output]),
        ]
