"""A family spec of a user's own that builds within a second or two."""

from __future__ import annotations

SIDES = '''
"""A family in one file: on which side of a line is a point?"""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from variants.manifest import TensorPreparation, TensorSpec
from variants.recipes.artifact import Artifact
from variants.spec import Candidate, FamilySpec, LabelledRows, split


def load(context):
    points = np.random.default_rng(0).standard_normal((400, 2)).astype(np.float32)
    rows = LabelledRows({"point": points}, (points.sum(axis=1) > 0).astype(np.int64))
    return split(rows, train=10, validation=90, seed=0)


def make(path, blur):
    weights = np.array([[-1, 1], [-1 + blur, 1 - blur]], dtype=np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["point", "weights"], ["logits"])],
        "sides",
        [helper.make_tensor_value_info("point", TensorProto.FLOAT, ["n", 2])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 2])],
        [numpy_helper.from_array(weights, "weights")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return Artifact(path, "by hand", ("by hand",), 4)


def build(context, data):
    yield Candidate("exact", lambda path: make(path, 0.0))
    yield Candidate("blurred", lambda path: make(path, 0.9))


FAMILY = FamilySpec(
    name="sides",
    description="points",
    labels=("below", "above"),
    inputs=(TensorSpec(name="point", datatype="FP32", shape=(-1, 2)),),
    preparation=TensorPreparation(),
    load=load,
    build=build,
    default_slo_s=0.05,
    samples=50,
)
'''
