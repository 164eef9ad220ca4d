"""Candidates that give no sound model: they are left out, and the rest is built."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from tests.variants.built import WEIGHTS, build, failing, with_candidate
from variants.recipes.artifact import Artifact
from variants.repository import Repository
from variants.spec import BuildContext, Candidate, Dataset, FamilySpec

FACTOR = np.float32(1e4)


def test_a_recipe_that_fails_fails_alone(sides: FamilySpec, repository: Repository) -> None:
    """The other variants are built; the reason is shown and stored, without folders of the building machine."""
    output = io.StringIO()
    error = ValueError(f"cannot read\n{repository.root}/sides")
    revision = build(with_candidate(sides, failing(error)), repository, output)
    assert ["exact", "blurred"] == [variant.name for variant in revision.manifest.variants]
    assert "broken is left out: ValueError: cannot read" in output.getvalue()
    assert str(revision.manifest.build["left_out.broken"]).startswith("ValueError: cannot read")
    assert not any(entry.path.startswith("broken") for entry in revision.manifest.files)


def test_a_model_that_cannot_be_opened_is_left_out(sides: FamilySpec, repository: Repository) -> None:
    """A recipe that writes rubbish without noticing is found out when its file is opened."""

    def rubbish(path: Path) -> Artifact:
        path.write_bytes(b"rubbish")
        return Artifact(path, "rubbish", (), 0)

    revision = build(with_candidate(sides, Candidate("rubbish", rubbish)), repository)
    assert "cannot be opened as a model" in str(revision.manifest.build["left_out.rubbish"])
    assert "/.staging-" not in str(revision.manifest.build["left_out.rubbish"])


def test_an_export_that_differs_from_its_original_is_left_out(sides: FamilySpec, repository: Repository) -> None:
    """Parity is checked: a graph of the recipe `export` whose logits are not the original's does not get in."""

    def exported(path: Path) -> Artifact:
        [exact, _] = sides.build(Any, Any)  # type: ignore[arg-type]  # this spec looks at neither
        return replace(exact.make(path), recipe="export")

    def other(feeds: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        return np.zeros((len(feeds["point"]), 2), dtype=np.float32)

    revision = build(with_candidate(sides, Candidate("wrong", exported, reference=other)), repository)
    assert "logits differ by" in str(revision.manifest.build["left_out.wrong"])


def made_by(sides: FamilySpec, change: Callable[[Artifact], Any]) -> Candidate:
    """A candidate whose file is that of `exact`, changed."""
    [exact, _] = sides.build(Any, Any)  # type: ignore[arg-type]  # this spec looks at neither
    return Candidate("changed", lambda path: change(exact.make(path)))


def with_input(artifact: Artifact, name: str) -> Artifact:
    """Call the input something else."""
    model = onnx.load(artifact.path)
    model.graph.input[0].name = model.graph.node[0].input[0] = name
    onnx.save(model, artifact.path)
    return artifact


def with_node(artifact: Artifact, kind: str, *more: str, output: str = "logits") -> Artifact:
    """Put a node behind the logits."""
    model = onnx.load(artifact.path)
    model.graph.node[0].output[0] = "before"
    model.graph.node.append(helper.make_node(kind, ["before", *more], [output]))
    model.graph.output[0].name = output
    onnx.save(model, artifact.path)
    return artifact


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda artifact: None, "its make() gave None, not the Artifact of the file"),
        (lambda artifact: replace(artifact, path=artifact.path.parent), "its make() gave Artifact("),
        (lambda artifact: with_input(artifact, "pt"), "its model takes pt; preparation gives point"),
        (lambda artifact: with_node(artifact, "Identity", output="out"), "its model gives out, not 'logits'"),
        (lambda artifact: with_node(artifact, "Transpose"), "its model gives float32 [2, 16] as 'logits' for 16 rows"),
        (lambda artifact: with_node(artifact, "Log"), "its model gives 'logits' that are not finite"),
    ],
)
def test_a_model_that_does_not_answer_as_a_classifier_is_left_out(
    change: Callable[[Artifact], Any], message: str, sides: FamilySpec, repository: Repository
) -> None:
    """Other inputs and outputs than the spec's, another number of labels, or logits that are no numbers."""
    revision = build(with_candidate(sides, made_by(sides, change)), repository)
    assert ["exact", "blurred"] == [variant.name for variant in revision.manifest.variants]
    assert message in str(revision.manifest.build["left_out.changed"])


def test_a_model_that_fails_on_later_rows_is_left_out(sides: FamilySpec, repository: Repository) -> None:
    """Logits that are finite for the first rows but not for all held-out ones are found when they are measured."""

    def load(context: BuildContext) -> Dataset:
        data = sides.load(context)
        data.test.inputs["point"][-1] = 1000.0
        return data

    changed = made_by(sides, lambda artifact: with_node(artifact, "Exp"))
    revision = build(with_candidate(replace(sides, load=load), changed), repository)
    assert ["exact", "blurred"] == [variant.name for variant in revision.manifest.variants]
    assert "not finite to some held-out rows" in str(revision.manifest.build["left_out.changed"])
    assert not (revision.path / "changed").exists()


def test_large_logits_may_differ_by_more(sides: FamilySpec, repository: Repository) -> None:
    """Parity is a share of the largest logit: what float32 cannot tell apart at ten thousand is no difference."""
    [exact, _] = sides.build(Any, Any)  # type: ignore[arg-type]  # this spec looks at neither

    def exported(path: Path) -> Artifact:
        artifact = exact.make(path)
        model = onnx.load(artifact.path)
        model.graph.initializer[0].CopyFrom(numpy_helper.from_array(FACTOR * WEIGHTS, "weights"))
        onnx.save(model, artifact.path)
        return replace(artifact, recipe="export")

    def reference(feeds: Mapping[str, NDArray[Any]], error: float = 2e-6) -> NDArray[np.float32]:
        answer: NDArray[np.float32] = feeds["point"] @ (FACTOR * WEIGHTS * np.float32(1 + error))
        return answer

    near = Candidate("near", exported, reference=reference)
    far = Candidate("far", exported, reference=lambda feeds: reference(feeds, 0.01))
    revision = build(with_candidate(with_candidate(sides, near), far), repository)
    assert ["exact", "blurred", "near"] == [variant.name for variant in revision.manifest.variants]
    assert float(revision.manifest.build["logit_difference.near"]) > 1e-3
