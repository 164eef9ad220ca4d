"""Builds that end with one line: specs, data and candidates that are wrong, and disks that are full."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from tests.variants.built import build, failing, with_candidate
from variants.families import load_family
from variants.manifest import TensorSpec
from variants.recipes.artifact import Artifact
from variants.repository import Repository
from variants.spec import BuildContext, BuildError, Candidate, Dataset, FamilySpec


def test_another_task_is_refused(sides: FamilySpec, repository: Repository) -> None:
    """A family of a task that cannot be served is not built."""
    with pytest.raises(BuildError, match=r"^sides: task 'regression': only families of the task classification"):
        build(replace(sides, task="regression"), repository)


def test_a_full_disk_ends_the_build(sides: FamilySpec, repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a variant cannot be written it is not left out, for the next would not fit either; nothing stays behind."""
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    message = r"^sides: cannot be written: No space left on device; check the space left in "
    with pytest.raises(BuildError, match=message):
        build(with_candidate(sides, failing(full)), repository)

    def fails(*given: object) -> None:
        raise full

    monkeypatch.setattr("variants.assessment.save_scores", fails)
    with pytest.raises(BuildError, match=message):
        build(sides, repository)
    assert [] == list((repository.root / "sides").iterdir())


def test_a_tool_that_does_not_notice_a_full_disk_ends_the_build(
    sides: FamilySpec, repository: Repository, tmp_path: Path
) -> None:
    """What it wrote cannot be read, for want of room, which is what is said; with room the next build publishes."""
    source = tmp_path / "large.onnx"
    weights = numpy_helper.from_array(np.zeros((2, 1 << 18), np.float32), "weights")
    onnx.save(helper.make_model(helper.make_graph([], "large", [], [], [weights])), source)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def truncated(path: Path) -> Artifact:
        # As onnxruntime's quantizers do: written in C++, which stores what it can and says nothing.
        onnx.shape_inference.infer_shapes_path(str(source), str(path))
        onnx.load(path)
        return Artifact(path, "inferred", (), 0)

    def limited(context: BuildContext, data: Dataset) -> Iterator[Candidate]:
        yield from sides.build(context, data)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 18, hard))
        yield Candidate("truncated", truncated)

    try:
        message = r"^sides: cannot be written: File too large \(DecodeError: .*\); check the space left in "
        with pytest.raises(BuildError, match=message):
            build(replace(sides, build=limited), repository)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [] == list((repository.root / "sides").iterdir())
    assert ["exact", "blurred"] == [variant.name for variant in build(sides, repository).manifest.variants]


def test_an_essential_candidate_stops_the_build(sides: FamilySpec, repository: Repository) -> None:
    """The build fails with one line that names the variant, and the repository has no new revision."""
    with pytest.raises(BuildError, match=r"^sides: variant broken cannot be made: ValueError: no$"):
        build(with_candidate(sides, failing(ValueError("no"), essential=True)), repository)
    assert () == repository.families()


def test_a_spec_that_fails_is_named_with_its_function(sides: FamilySpec, repository: Repository) -> None:
    """What the family's own `load` or `build` raises becomes one line that says which of them it was."""

    def broken(*given: object) -> Any:
        raise ZeroDivisionError("division by zero")

    with pytest.raises(BuildError, match=r"^sides: the family's load\(\) failed: ZeroDivisionError: division by zero$"):
        build(replace(sides, load=broken), repository)
    with pytest.raises(BuildError, match=r"^sides: the family's build\(\) failed: ZeroDivisionError"):
        build(replace(sides, build=broken), repository)
    assert () == repository.families()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "a b"}, r"name: String should match pattern"),
        ({"labels": ("below", "below")}, r"labels: two are called 'below'$"),
        ({"labels": ("below",)}, r"labels: Tuple should have at least 2 items"),
        ({"default_slo_s": 0.0}, r"default_slo_s: Input should be greater than 0$"),
        ({"max_batch": 5000}, r"max_batch: Input should be less than or equal to 1024$"),
        ({"sizes": (1, 2)}, r"sizes: a tensor family has the one size class \[1\], not \[1, 2\]$"),
        ({"inputs": ()}, r"inputs: Tuple should have at least 1 item"),
        ({"inputs": (TensorSpec(name="point", datatype="FP32", shape=(2,)),)}, r"a tensor needs numbers of shape"),
        ({"inputs": (TensorSpec(name="label", datatype="FP32", shape=(-1, 2)),)}, r"cannot be called 'label'"),
        ({"inputs": (TensorSpec(name="logits", datatype="FP32", shape=(-1, 2)),)}, r"cannot be called 'logits'"),
        ({"samples": 0}, r"samples: 0 rows cannot be kept, at least 1 is needed$"),
    ],
)
def test_a_spec_that_could_not_be_published_is_refused_at_once(
    changes: dict[str, Any], message: str, sides: FamilySpec, repository: Repository
) -> None:
    """What the manifest would not take is said before anything is loaded or trained, naming the field."""

    def never(*given: object) -> Any:
        raise AssertionError("loaded")

    with pytest.raises(BuildError, match=message):
        build(replace(sides, load=never, **changes), repository)
    assert not repository.root.exists()


@pytest.mark.parametrize(
    ("candidate", "message"),
    [
        ("exact", r"^sides: the family's build\(\) gave 'exact', not a Candidate$"),
        (None, r"^sides: the family's build\(\) gave None, not a Candidate$"),
        (failing(ValueError("no")), r"^sides: two are called 'exact' in the revision's folder: rename one$"),
        (replace(failing(ValueError("no")), name="stages"), r"^sides: two are called 'stages'"),
        (replace(failing(ValueError("no")), name="samples.npz"), r"^sides: two are called 'samples\.npz'"),
        (replace(failing(ValueError("no")), stages=("../x",)), r"^sides: '\.\./x' is no name for a variant or a stage"),
    ],
)
def test_what_is_no_candidate_of_its_own_name_stops_the_build(
    candidate: Any, message: str, sides: FamilySpec, repository: Repository
) -> None:
    """A mistake in what is yielded is told as one, and no other variant's folder is touched."""
    if isinstance(candidate, Candidate) and candidate.name == "broken" and not candidate.stages:
        candidate = replace(candidate, name="exact")
    with pytest.raises(BuildError, match=message):
        build(with_candidate(sides, candidate), repository)
    assert () == repository.families()


def test_a_candidate_s_name_leads_nowhere_else(sides: FamilySpec, repository: Repository, tmp_path: Path) -> None:
    """A failing candidate that is named as a folder elsewhere does not take that folder with it."""
    kept = tmp_path / "kept"
    kept.mkdir()
    for name in (str(kept), f"../../../{kept.name}"):
        with pytest.raises(BuildError, match=r"is no name for a variant"):
            build(with_candidate(sides, replace(failing(ValueError("no")), name=name)), repository)
    assert kept.is_dir()


def test_rows_that_cannot_be_prepared_are_named(sides: FamilySpec, repository: Repository) -> None:
    """Data that preparation refuses is the family's fault, told with the part and the row."""

    def load(context: BuildContext) -> Dataset:
        data = sides.load(context)
        data.test.inputs["point"][7] = np.nan
        return data

    with pytest.raises(BuildError, match=r"^sides: the test part of the data: input 'point': row 7 holds a value"):
        build(replace(sides, load=load), repository)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file"),
        ("FAMILY = 3", "has no FAMILY = FamilySpec"),
        ("import nowhere", "cannot be imported: ModuleNotFoundError: No module named 'nowhere'"),
    ],
)
def test_a_spec_that_cannot_be_loaded_says_why(content: str | None, message: str, tmp_path: Path) -> None:
    """A missing file, one without a spec and one that fails on import each give a line that says so."""
    path = tmp_path / "mine.py"
    if content is not None:
        path.write_text(content)
    with pytest.raises(BuildError, match=message):
        load_family(str(path))


def test_an_unknown_family_names_the_known() -> None:
    """A name that is neither built in nor a file is answered with what there is."""
    with pytest.raises(BuildError, match=r"'sentimant' is not a family: .*digits, fashion, sentiment"):
        load_family("sentimant")
