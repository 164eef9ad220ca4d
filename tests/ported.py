"""A tiny family that can be ported: four numbers in, a network of one hidden layer, built and extended in seconds."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from variants.build import build_family
from variants.manifest import TensorPreparation, TensorSpec
from variants.porting.extend import extend_family
from variants.progress import LineDisplay
from variants.recipes.artifact import EXPORT, Artifact
from variants.repository import Repository
from variants.revision import RevisionFolder
from variants.spec import BuildContext, Candidate, Dataset, FamilySpec, LabelledRows, split

HIDDEN = 64


def load(_: BuildContext, seed: int = 0) -> Dataset:
    points = np.random.default_rng(seed).standard_normal((400, 4)).astype(np.float32)
    rows = LabelledRows({"x": points}, (points[:, 0] > 0).astype(np.int64))
    return split(rows, train=10, validation=90, seed=0)


def write(path: Path, seed: int, recipe: str) -> Artifact:
    """A hidden layer that keeps the sign of x0, and adds a little of everything else."""
    random = np.random.default_rng(seed)
    first = (random.standard_normal((4, HIDDEN)) / 50).astype(np.float32)
    first[0, :2] += np.array([1, -1], np.float32)
    second = (random.standard_normal((HIDDEN, 2)) / 50).astype(np.float32)
    second[:2] += np.array([[-3, 3], [3, -3]], np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Gemm", ["x", "first"], ["wide"]),
            helper.make_node("Relu", ["wide"], ["kept"]),
            helper.make_node("Gemm", ["kept", "second"], ["logits"]),
        ],
        "points",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 2])],
        [numpy_helper.from_array(first, "first"), numpy_helper.from_array(second, "second")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return Artifact(path, recipe, ("by hand",), first.size + second.size)


def build(_: BuildContext, data: Dataset) -> Iterator[Candidate]:
    yield Candidate("float", lambda path: write(path, 1, EXPORT))
    yield Candidate("other", lambda path: write(path, 2, "by hand"))


def write_chain(context: BuildContext, path: Path, exit_at: int) -> Artifact:
    """Hidden layers one after the other, each with an exit; and the same as stages `layer-0` and `layer-1`."""
    eye = np.eye(4, dtype=np.float32)
    answer = np.array([[-3, 3], [0, 0], [0, 0], [0, 0]], np.float32)
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 2])
    weights = [numpy_helper.from_array(eye, "eye"), numpy_helper.from_array(answer, "answer")]

    def layer(source: str, number: int) -> onnx.NodeProto:
        return helper.make_node("MatMul", [source, "eye"], [f"hidden_{number}"])

    def save(to: Path, nodes: list[onnx.NodeProto], last: int, *, first: int = 0, leaves: bool = False) -> None:
        state = helper.make_tensor_value_info(f"hidden_{last}", TensorProto.FLOAT, ["n", 4])
        source = helper.make_tensor_value_info("hidden_0", TensorProto.FLOAT, ["n", 4]) if first else given
        nodes = [*nodes, helper.make_node("MatMul", [f"hidden_{last}", "answer"], ["logits"])]
        graph = helper.make_graph(nodes, "chain", [source], [logits, state] if leaves else [logits], weights)
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), to)

    save(context.stage_path("layer-0"), [layer("x", 0)], 0, leaves=True)
    save(context.stage_path("layer-1"), [layer("hidden_0", 1)], 1, first=1)
    save(path, [layer("x", 0), layer("hidden_0", 1)][: exit_at + 1], exit_at)
    return Artifact(path, EXPORT, ("by hand",), 24)


def build_chain(context: BuildContext, data: Dataset) -> Iterator[Candidate]:
    yield Candidate("near", lambda path: write_chain(context, path, 0), stages=("layer-0",))
    yield Candidate("far", lambda path: write_chain(context, path, 1), stages=("layer-0", "layer-1"))


POINTS = FamilySpec(
    name="points",
    description="the sign of the first of four numbers",
    labels=("no", "yes"),
    inputs=(TensorSpec(name="x", datatype="FP32", shape=(-1, 4)),),
    preparation=TensorPreparation(),
    load=load,
    build=build,
    default_slo_s=10.0,
    max_batch=4,
    samples=50,
)


CHAIN = replace(POINTS, name="chain", build=build_chain)
"""Two exits of one chain."""


def built(root: Path, spec: FamilySpec = POINTS) -> Repository:
    """A repository with the family in it."""
    repository = Repository(root / "models")
    build_family(spec, repository, display=LineDisplay("build", io.StringIO()), cache=root / "cache", jobs=1)
    return repository


def extended(
    repository: Repository,
    runtimes: Sequence[str],
    only: Sequence[str] = (),
    *,
    spec: FamilySpec = POINTS,
    said: io.StringIO | None = None,
    batch_tolerance: float | None = None,
) -> RevisionFolder:
    """The family with its variants on more runtimes."""
    display = LineDisplay("port", said or io.StringIO())
    return extend_family(
        spec,
        repository,
        runtimes,
        only=only,
        display=display,
        jobs=1,
        cache=repository.root.parent / "cache",
        batch_tolerance=batch_tolerance,
    )
