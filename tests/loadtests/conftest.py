"""A tiny real family on disk: two linear models of four numbers, of which the small one looks at only one.

And a stand-in for the gateway (`tiny_server`) that answers by the same rule.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from loadtests.servers import Command, Server, running
from variants.manifest import FamilyManifest, Invariance, Quality, TensorPreparation, TensorSpec, VariantManifest
from variants.repository import Repository

ROWS = 64
DIMENSIONS = 4
WEIGHTS = {"small": [1.0, 0.0, 0.0, 0.0], "large": [1.0, -1.0, 0.5, 2.0]}


def _write_linear_model(path: Path, weights: list[float]) -> None:
    matrix = np.array([[-w, w] for w in weights], dtype=np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["logits"])],
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", DIMENSIONS])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["rows", 2])],
        [numpy_helper.from_array(matrix, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path.parent.mkdir(parents=True)
    onnx.save(model, path)


def _predicted(rows: NDArray[np.float32], name: str) -> NDArray[np.int64]:
    return (rows @ np.array(WEIGHTS[name], dtype=np.float32) > 0).astype(np.int64)


def _variant(name: str, accuracy: float, size_bytes: int) -> VariantManifest:
    return VariantManifest(
        name=name,
        recipe="linear",
        lineage=("linear",),
        model_file=f"{name}/model.onnx",
        calibration_file=f"{name}/calibration.npz",
        quality=Quality(
            value=accuracy, standard_error=0.05, precision=accuracy, recall=accuracy, f1=accuracy, samples=ROWS
        ),
        invariance=Invariance(invariant=True, label_flips=0.0, max_probability_delta=0.0, compared_rows=ROWS),
        parameters=2 * DIMENSIONS,
        size_bytes=size_bytes,
        on_frontier=True,
        load_by_default=True,
    )


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with the family `tiny`: input x FP32 [-1, 4], labels no and yes, variants small and large."""
    root = tmp_path_factory.mktemp("models")
    repository = Repository(root)
    rows = np.random.default_rng(7).standard_normal((ROWS, DIMENSIONS)).astype(np.float32)
    label = _predicted(rows, "large")
    variants = []
    with repository.new_staging("tiny") as staging:
        for name, weights in WEIGHTS.items():
            predicted = _predicted(rows, name)
            _write_linear_model(staging / name / "model.onnx", weights)
            confidence = np.full(ROWS, 0.9, dtype=np.float32)
            np.savez(
                staging / name / "calibration.npz",
                label=label,
                predicted=predicted,
                confidence=confidence,
                sample_predicted=predicted,
                sample_confidence=confidence,
            )
            size_bytes = (staging / name / "model.onnx").stat().st_size
            variants.append(_variant(name, float((predicted == label).mean()), size_bytes))
        np.savez(staging / "samples.npz", x=rows, label=label)
        manifest = FamilyManifest(
            name="tiny",
            revision="r1",
            description="the sign of a weighted sum",
            inputs=(TensorSpec(name="x", datatype="FP32", shape=(-1, DIMENSIONS)),),
            outputs=(
                TensorSpec(name="label", datatype="BYTES", shape=(-1,)),
                TensorSpec(name="confidence", datatype="FP32", shape=(-1,)),
                TensorSpec(name="probabilities", datatype="FP32", shape=(-1, 2)),
            ),
            labels=("no", "yes"),
            preparation=TensorPreparation(),
            max_batch=8,
            default_slo_s=0.1,
            variants=tuple(variants),
            created=datetime.now(UTC),
        )
        repository.publish(manifest, staging)
    return root


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """A stand-in for the gateway."""
    arguments = ("-m", "uvicorn", "tiny_server:app", "--app-dir", str(Path(__file__).parent), "--log-level", "warning")
    with running(Command("tiny", (sys.executable, *arguments, "--port", "{port}"))) as started:
        yield started


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Results are written into an empty folder, where there are no settings and no models."""
    monkeypatch.chdir(tmp_path)
