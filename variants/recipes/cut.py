"""A part of a graph as a model of its own: one exit of a multi-exit network, or one stage of its chain.

All parts come out of one graph, node for node, so a chain of stages computes what the whole does.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import onnx
from onnx import helper

from variants.recipes.artifact import Artifact, RecipeError


def cut(
    source: Artifact | onnx.ModelProto,
    path: Path,
    *,
    inputs: Mapping[str, str],
    outputs: Mapping[str, str],
) -> None:
    """Write what lies between some tensors of a model and some others, under new names.

    `inputs` and `outputs` map tensor names in the source to names in the cut; both must be inputs or outputs of the
    source, for their types to be known. Raises `RecipeError` where a needed tensor is not there.
    """
    model = source if isinstance(source, onnx.ModelProto) else onnx.load(source.path)
    graph = model.graph
    known = {value.name: value for value in (*graph.input, *graph.output)}
    if missing := [name for name in (*inputs, *outputs) if name not in known]:
        raise RecipeError(f"the graph has no input or output {missing[0]!r}")
    names = {**inputs, **outputs}
    nodes = [_renamed(node, names) for node in _nodes_between(graph, set(inputs), set(outputs))]
    used = {name for node in nodes for name in node.input}
    made = {name for node in nodes for name in node.output}
    part = helper.make_graph(
        nodes,
        path.stem,
        [_renamed_value(known[name], new) for name, new in inputs.items()],
        [_renamed_value(known[name], new) for name, new in outputs.items()],
        [constant for constant in graph.initializer if constant.name in used],
        # Shapes that a stage declares where it begins must be known there in a whole graph too: onnxruntime fuses what
        # it knows the shapes of, and different fusions round differently.
        value_info=[value for name, value in known.items() if name in made and name not in outputs],
    )
    onnx.save(helper.make_model(part, opset_imports=model.opset_import, ir_version=model.ir_version), path)


def _nodes_between(graph: onnx.GraphProto, inputs: set[str], outputs: set[str]) -> list[onnx.NodeProto]:
    """Return the nodes, in the graph's order, that the outputs need when the inputs are given."""
    known = inputs | {constant.name for constant in graph.initializer}
    needed = set(outputs) - known
    chosen: list[onnx.NodeProto] = []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            chosen.append(node)
            needed.difference_update(node.output)
            needed.update(name for name in node.input if name and name not in known)
    if needed:
        raise RecipeError(f"the cut needs {min(needed)!r}, which is not among its inputs")
    return chosen[::-1]


def _renamed(node: onnx.NodeProto, names: Mapping[str, str]) -> onnx.NodeProto:
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    copy.input[:] = [names.get(name, name) for name in node.input]
    copy.output[:] = [names.get(name, name) for name in node.output]
    return copy


def _renamed_value(value: onnx.ValueInfoProto, name: str) -> onnx.ValueInfoProto:
    copy = onnx.ValueInfoProto()
    copy.CopyFrom(value)
    copy.name = name
    return copy
