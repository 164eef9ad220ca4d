"""Small real families on disk for the server's tests: what they compute is known, how long they take is chosen."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from variants.manifest import FamilyManifest, Invariance, Quality, TensorPreparation, TensorSpec, VariantManifest
from variants.repository import Repository

ROWS = 40
WIDTH = 512
"""A product of two square matrices of this size takes some milliseconds."""


def sign_model(matrix_products: int = 0) -> onnx.ModelProto:
    """Logits [-x0, x0] of x FP32 [n, 4], after that many products of large matrices for each row.

    A value of x1 under -1e6 gives logits that are not finite: a model that fails on an input it should take.
    """
    initial = [
        numpy_helper.from_array(np.array([[-1, 1], [0, 0], [0, 0], [0, 0]], np.float32), "w"),
        numpy_helper.from_array(np.array([0, 1, 0, 0], np.float32).reshape(4, 1), "pick"),
        numpy_helper.from_array(np.array([1e6 + 1], np.float32), "limit"),
        numpy_helper.from_array(np.zeros((4, WIDTH * 16), np.float32), "widen"),
        numpy_helper.from_array(np.array([-1, WIDTH], np.int64), "tall"),
        numpy_helper.from_array(np.eye(WIDTH, dtype=np.float32), "square"),
        numpy_helper.from_array(np.array([0, 16], np.int64), "by_row"),
        numpy_helper.from_array(np.array([1], np.int64), "axis"),
        numpy_helper.from_array(np.array([-1, 16 * WIDTH], np.int64), "wide"),
    ]
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["sign"]),
        helper.make_node("MatMul", ["x", "pick"], ["second"]),
        helper.make_node("Add", ["second", "limit"], ["shifted"]),
        helper.make_node("Log", ["shifted"], ["log"]),
        helper.make_node("Sub", ["log", "log"], ["zero_or_nan"]),
        helper.make_node("Add", ["sign", "zero_or_nan"], ["checked"]),
        helper.make_node("MatMul", ["x", "widen"], ["flat"]),
        helper.make_node("Reshape", ["flat", "tall"], ["work0"]),
    ]
    nodes += [
        helper.make_node("MatMul", [f"work{index}", "square"], [f"work{index + 1}"]) for index in range(matrix_products)
    ]
    nodes += [
        helper.make_node("Reshape", [f"work{matrix_products}", "wide"], ["done"]),
        helper.make_node("ReduceSum", ["done", "axis"], ["nothing"], keepdims=1),
        helper.make_node("Add", ["checked", "nothing"], ["logits"]),
    ]
    used = {name for node in nodes for name in node.input}
    graph = helper.make_graph(
        nodes,
        "sign",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", 4])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["rows", 2])],
        [tensor for tensor in initial if tensor.name in used],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def write_family(
    repository: Repository,
    name: str,
    variants: Mapping[str, tuple[onnx.ModelProto, float]],
    default_slo_s: float = 10.0,
) -> None:
    """Publish a family of (model, accuracy) by variant name; input `x` FP32 [-1, 4], labels `no` and `yes`."""
    rows = np.random.default_rng(3).standard_normal((ROWS, 4)).astype(np.float32)
    label = (rows[:, 0] > 0).astype(np.int64)
    manifests = []
    with repository.new_staging(name) as staging:
        for variant, (model, accuracy) in variants.items():
            folder = staging / variant
            folder.mkdir()
            onnx.save(model, folder / "model.onnx")
            confident = np.full(ROWS, 0.9, np.float32)
            np.savez(
                folder / "calibration.npz",
                label=label,
                predicted=label,
                confidence=confident,
                sample_predicted=label,
                sample_confidence=confident,
            )
            manifests.append(_variant(variant, accuracy, (folder / "model.onnx").stat().st_size))
        np.savez(staging / "samples.npz", x=rows, label=label)
        manifest = FamilyManifest(
            name=name,
            revision="1",
            description="The sign of the first of four numbers.",
            inputs=(TensorSpec(name="x", datatype="FP32", shape=(-1, 4)),),
            outputs=(
                TensorSpec(name="label", datatype="BYTES", shape=(-1,)),
                TensorSpec(name="confidence", datatype="FP32", shape=(-1,)),
                TensorSpec(name="probabilities", datatype="FP32", shape=(-1, 2)),
            ),
            labels=("no", "yes"),
            preparation=TensorPreparation(),
            max_batch=4,
            default_slo_s=default_slo_s,
            variants=tuple(manifests),
            created=datetime(2026, 1, 1, tzinfo=UTC),
        )
        repository.publish(manifest, staging)


def _variant(name: str, accuracy: float, size_bytes: int) -> VariantManifest:
    return VariantManifest(
        name=name,
        recipe="by hand",
        lineage=("by hand",),
        model_file=f"{name}/model.onnx",
        calibration_file=f"{name}/calibration.npz",
        quality=Quality(
            value=accuracy, standard_error=0.01, precision=accuracy, recall=accuracy, f1=accuracy, samples=ROWS
        ),
        invariance=Invariance(invariant=True, label_flips=0.0, max_probability_delta=0.0, compared_rows=ROWS),
        parameters=8,
        size_bytes=size_bytes,
        on_frontier=True,
        load_by_default=True,
    )
