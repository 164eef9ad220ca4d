"""Edits of a foreign graph that leave what it computes as it is."""

from __future__ import annotations

from collections.abc import Mapping

import onnx
from onnx import TensorProto, helper, inliner, version_converter

from variants.preparation import LOGITS
from variants.recipes.matrices import names_read_by, opset_of, separate_inputs_from_constants

OPSET = 17
"""What older models are converted to: per-channel scales need opset 13."""
_OLDEST = 13
_INNER = "foreign_"


def up_to_date(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a model with its constants apart from its inputs, in a recent opset where the converter knows how.

    Functions of its own are unfolded: recipes look at the graph.
    """
    if model.functions:
        model = inliner.inline_local_functions(model)
    separate_inputs_from_constants(model)
    if opset_of(model) >= _OLDEST:
        return model
    try:
        return version_converter.convert_version(model, OPSET)
    except Exception:  # noqa: BLE001 - the converter's own types; an old opset is served as it is, with fewer variants
        return model


def with_only_output(model: onnx.ModelProto, tensor: str) -> onnx.ModelProto:
    """Return a copy with one output, which may be any tensor of the graph."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    known = {value.name: value for value in (*model.graph.output, *model.graph.value_info)}
    del copy.graph.output[:]
    copy.graph.output.append(known.get(tensor, onnx.ValueInfoProto(name=tensor)))
    return copy


def producer(graph: onnx.GraphProto, tensor: str) -> onnx.NodeProto | None:
    """Return the node that makes a tensor, looked for behind nodes that only pass it on."""
    makers = {name: node for node in graph.node for name in node.output}
    node = makers.get(tensor)
    while node is not None and node.op_type == "Identity":
        node = makers.get(node.input[0])
    return node


def served_form(
    model: onnx.ModelProto, tensor: str, classes: int, row_shape: tuple[int, ...], added: list[onnx.NodeProto]
) -> onnx.ModelProto:
    """Return a copy that takes float32 [rows, *row_shape] and gives `logits` float32 [rows, classes].

    The logits are what the nodes `added` make of `tensor`; the first of them reads it, each the one before it.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    (given,) = graph.input
    inner = {LOGITS: f"{_INNER}{LOGITS}"}
    if given.type.tensor_type.elem_type != TensorProto.FLOAT:
        inner[given.name] = f"{_INNER}{given.name}"
    for node in graph.node:
        _rename(node, inner)
    for constant in graph.initializer:
        constant.name = inner.get(constant.name, constant.name)
    if given.name in inner:
        cast = helper.make_node("Cast", [given.name], [inner[given.name]], to=given.type.tensor_type.elem_type)
        graph.node.insert(0, cast)
    last = inner.get(tensor, tensor)
    for number, template in enumerate(added):
        node = graph.node.add()
        node.CopyFrom(template)
        node.input[0] = last
        last = f"{_INNER}answer_{number}"
        node.output[:] = [last]
    graph.node.append(helper.make_node("Cast", [last], [LOGITS], to=TensorProto.FLOAT))
    _drop_unused(graph)
    given.CopyFrom(helper.make_tensor_value_info(given.name, TensorProto.FLOAT, ["rows", *row_shape]))
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info(LOGITS, TensorProto.FLOAT, ["rows", classes]))
    # Shapes of inner tensors are worked out anew from the input's.
    del graph.value_info[:]
    return copy


def _rename(node: onnx.NodeProto, names: Mapping[str, str]) -> None:
    """Rename tensors wherever a node, its branches and loop bodies read or make them."""
    node.input[:] = [names.get(name, name) for name in node.input]
    node.output[:] = [names.get(name, name) for name in node.output]
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            for inner in graph.node:
                _rename(inner, names)
            values: list[onnx.ValueInfoProto | onnx.TensorProto] = [*graph.input, *graph.output, *graph.initializer]
            for value in values:
                value.name = names.get(value.name, value.name)


def _drop_unused(graph: onnx.GraphProto) -> None:
    """Drop the nodes behind what is read now, such as a softmax that was cut off, and the constants they had."""
    needed = {LOGITS}
    kept = []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            kept.append(node)
            needed.update(names_read_by(node))
    constants = [constant for constant in graph.initializer if constant.name in needed]
    nodes = kept[::-1]
    del graph.node[:]
    graph.node.extend(nodes)
    del graph.initializer[:]
    graph.initializer.extend(constants)
