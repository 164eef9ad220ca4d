"""Small families made by hand: what their models compute is known, and so is what breaks them.

The models that break do so by themselves, by what onnxruntime does with a row: one value makes it divide the least
integer by minus one, which ends the process (SIGFPE; x86 alone), another makes it count for days.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from variants.manifest import (
    FamilyManifest,
    Invariance,
    Quality,
    StageManifest,
    TensorPreparation,
    TensorSpec,
    VariantManifest,
)
from variants.repository import Repository

ROWS = 40

CRASHES = (1.0, -1000.0, 0.0, 0.0)
"""A row on which `breaking_model` ends its process."""
HANGS = (1.0, 0.0, 1e15, 0.0)
"""A row on which it does not come to an end."""

Answered = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]
"""True labels, predicted labels and confidences, each [n]."""


def sound_model() -> onnx.ModelProto:
    """Logits [-x0, x0] of x FP32 [n, 4], whatever else there is in it."""
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["logits"])],
        "sound",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", 4])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["rows", 2])],
        [numpy_helper.from_array(np.array([[-1, 1], [0, 0], [0, 0], [0, 0]], np.float32), "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def breaking_model(products: int = 0, width: int = 256, *, always: bool = False) -> onnx.ModelProto:
    """Logits [-x0, x0] of x FP32 [n, 4], after so many products of two matrices of that width.

    A row whose x1 is -1000 ends the process, or `always` each does; one whose x2 is 1e15 does not come to an end.
    """
    initial: dict[str, NDArray[Any]] = {
        "w": np.array([[-1, 1], [0, 0], [0, 0], [0, 0]], np.float32),
        "x1": np.array([[0], [0 if always else 1], [0], [0]], np.float32),
        "x2": np.array([[0], [0], [1], [0]], np.float32),
        "more": np.array(-1 if always else 999, np.int64),
        "least": np.array(-(2**63), np.int64),
        "true": np.array(True),
        "zero": np.array(0.0, np.float32),
        "square": np.eye(width, dtype=np.float32),
        "zeros": np.zeros((width, width), np.float32),
    }
    turn = helper.make_graph(
        [helper.make_node("Identity", ["go_on"], ["and_on"]), helper.make_node("Sin", ["value"], ["next_value"])],
        "turn",
        [
            helper.make_tensor_value_info("turn", TensorProto.INT64, []),
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("value", TensorProto.FLOAT, []),
        ],
        [
            helper.make_tensor_value_info("and_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next_value", TensorProto.FLOAT, []),
        ],
    )
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["sign"]),
        helper.make_node("MatMul", ["x", "x1"], ["second"]),
        helper.make_node("Cast", ["second"], ["whole"], to=TensorProto.INT64),
        helper.make_node("Add", ["whole", "more"], ["divisor"]),
        helper.make_node("Div", ["least", "divisor"], ["divided"]),
        helper.make_node("Cast", ["divided"], ["crashed"], to=TensorProto.FLOAT),
        helper.make_node("Sub", ["crashed", "crashed"], ["no_crash"]),
        helper.make_node("MatMul", ["x", "x2"], ["third"]),
        helper.make_node("ReduceMax", ["third"], ["longest"], keepdims=0),
        helper.make_node("Cast", ["longest"], ["turns"], to=TensorProto.INT64),
        helper.make_node("Loop", ["turns", "true", "zero"], ["no_hang"], body=turn),
        helper.make_node("Add", ["zeros", "no_hang"], ["work0"]),
        *(helper.make_node("MatMul", [f"work{n}", "square"], [f"work{n + 1}"]) for n in range(products)),
        helper.make_node("ReduceSum", [f"work{products}"], ["worked"], keepdims=0),
        helper.make_node("Sum", ["sign", "no_crash", "no_hang", "worked"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "breaks",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", 4])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["rows", 2])],
        [numpy_helper.from_array(value, name) for name, value in initial.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def aborting_model() -> onnx.ModelProto:
    """One that ends its process when it is opened: onnxruntime divides constants by then."""
    initial = {"least": np.array(-(2**63), np.int64), "minus": np.array(-1, np.int64)}
    nodes = [
        helper.make_node("Div", ["least", "minus"], ["divided"]),
        helper.make_node("Cast", ["divided"], ["constant"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["x", "constant"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "aborts",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", 4])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["rows", 4])],
        [numpy_helper.from_array(value, name) for name, value in initial.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def write_family(
    repository: Repository,
    name: str,
    variants: Mapping[str, tuple[onnx.ModelProto, float]],
    default_slo_s: float = 10.0,
    *,
    evidence: Mapping[str, Answered] | None = None,
    stages: Mapping[str, onnx.ModelProto] | None = None,
    paths: Mapping[str, tuple[str, ...]] | None = None,
    revision: str = "1",
    labels: tuple[str, str] = ("no", "yes"),
    runtimes: Mapping[str, str] | None = None,
) -> None:
    """Publish a family of (model, accuracy) by variant name; input `x` FP32 [-1, 4], labels `no` and `yes`.

    `evidence` has true labels, answers and confidences of the validation part by variant, `stages` the models of
    stages and `paths` the stages of each variant that has a chain. `runtimes` names the runtime of each variant that is
    not onnxruntime's.
    """
    rows = np.random.default_rng(3).standard_normal((ROWS, 4)).astype(np.float32)
    label = (rows[:, 0] > 0).astype(np.int64)
    confident = np.full(ROWS, 0.9, np.float32)
    manifests = []
    with repository.new_staging(name) as staging:
        for stage, model in (stages or {}).items():
            (staging / "stages").mkdir(exist_ok=True)
            onnx.save(model, staging / "stages" / f"{stage}.onnx")
        for variant, (model, accuracy) in variants.items():
            folder = staging / variant
            folder.mkdir()
            onnx.save(model, folder / "model.onnx")
            # As many wrong answers as its accuracy says, so that what is known of rows and of the variant agree.
            wrong = np.arange(ROWS) >= round(accuracy * ROWS)
            usual = label, np.where(wrong, 1 - label, label), np.where(wrong, 0.6, confident).astype(np.float32)
            truth, predicted, confidence = (evidence or {}).get(variant, usual)
            np.savez(
                folder / "calibration.npz",
                label=truth,
                predicted=predicted,
                confidence=confidence,
                sample_predicted=label,
                sample_confidence=confident,
            )
            size_bytes = (folder / "model.onnx").stat().st_size
            made = _variant(variant, accuracy, size_bytes, (paths or {}).get(variant, ()))
            manifests.append(made.model_copy(update={"runtime": (runtimes or {}).get(variant, made.runtime)}))
        np.savez(staging / "samples.npz", x=rows, label=label)
        manifest = FamilyManifest(
            name=name,
            revision=revision,
            description="The sign of the first of four numbers.",
            inputs=(TensorSpec(name="x", datatype="FP32", shape=(-1, 4)),),
            outputs=(
                TensorSpec(name="label", datatype="BYTES", shape=(-1,)),
                TensorSpec(name="confidence", datatype="FP32", shape=(-1,)),
                TensorSpec(name="probabilities", datatype="FP32", shape=(-1, 2)),
            ),
            labels=labels,
            preparation=TensorPreparation(),
            max_batch=4,
            default_slo_s=default_slo_s,
            variants=tuple(manifests),
            stages=tuple(StageManifest(name=stage, file=f"stages/{stage}.onnx") for stage in stages or ()),
            created=datetime(2026, 1, 1, tzinfo=UTC),
        )
        repository.publish(manifest, staging)


def _variant(name: str, accuracy: float, size_bytes: int, stages: tuple[str, ...]) -> VariantManifest:
    return VariantManifest(
        name=name,
        recipe="by hand",
        lineage=("by hand",),
        model_file=f"{name}/model.onnx",
        calibration_file=f"{name}/calibration.npz",
        stages=stages,
        quality=Quality(
            value=accuracy, standard_error=0.01, precision=accuracy, recall=accuracy, f1=accuracy, samples=ROWS
        ),
        invariance=Invariance(invariant=True, label_flips=0.0, max_probability_delta=0.0, compared_rows=ROWS),
        parameters=8,
        size_bytes=size_bytes,
        on_frontier=True,
        load_by_default=True,
    )
