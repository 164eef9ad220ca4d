from __future__ import annotations

import io
import re
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from variants.build import build_family
from variants.families import load_family
from variants.measurements import Training
from variants.progress import LineDisplay
from variants.recipes.artifact import Artifact
from variants.repository import Repository
from variants.scores import read_scores
from variants.spec import BuildContext, BuildError, Candidate, Dataset, FamilySpec

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


@pytest.fixture
def sides(tmp_path: Path) -> FamilySpec:
    path = tmp_path / "sides.py"
    path.write_text(textwrap.dedent(SIDES))
    return load_family(str(path))


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "models")


def build(
    spec: FamilySpec, repository: Repository, output: io.StringIO | None = None, *, counterparts: bool = False
) -> Any:
    display = LineDisplay("build", output or io.StringIO())
    cache = repository.root / "cache"
    return build_family(spec, repository, display=display, cache=cache, jobs=1, counterparts=counterparts)


def with_candidate(spec: FamilySpec, candidate: Candidate) -> FamilySpec:
    """The family with one more candidate."""

    def more(context: BuildContext, data: Dataset) -> Iterator[Candidate]:
        yield from spec.build(context, data)
        yield candidate

    return replace(spec, build=more)


def failing(error: BaseException, essential: bool = False) -> Candidate:
    def fail(path: Path) -> Artifact:
        path.write_bytes(b"half a model")
        raise error

    return Candidate("broken", fail, essential=essential)


def test_a_family_is_one_python_file(sides: FamilySpec, repository: Repository) -> None:
    """A spec loaded from a path is built, measured, published and opened again like a built-in one."""
    build(sides, repository)
    revision = repository.open("sides")
    quality = {variant.name: variant.quality.value for variant in revision.manifest.variants}
    assert 1.0 == quality["exact"] > quality["blurred"] > 0.6
    assert {} == revision.verify()
    assert 50 == len(revision.samples()["label"])
    assert (90, 50) == (len(revision.calibration("exact").label), len(revision.calibration("exact").sample_predicted))


def test_what_was_measured_is_in_the_manifest(sides: FamilySpec, repository: Repository) -> None:
    """MACs, errors, scores of every test row and what training took are kept; a lost counterpart is not named."""

    def trained(path: Path) -> Artifact:
        [exact, _] = sides.build(Any, Any)  # type: ignore[arg-type]  # this spec looks at neither
        return replace(exact.make(path), facts={"training_s": 2.5, "labelled_rows": 10.0})

    spec = with_candidate(sides, Candidate("alone", trained, counterpart="exact"))
    spec = with_candidate(spec, Candidate("lonely", trained, counterpart="broken"))
    build(with_candidate(spec, failing(ValueError("no"))), repository)
    folder = repository.open("sides")
    variants = {variant.name: variant for variant in folder.manifest.variants}
    assert {4} == {variant.macs for variant in variants.values()}
    assert (None, Training(seconds=2.5, labelled_rows=10)) == (variants["exact"].training, variants["alone"].training)
    assert ("exact", None) == (variants["alone"].counterpart, variants["lonely"].counterpart)
    quality = variants["blurred"].quality
    assert 0.0 < (quality.f1_error or 0.0) < 0.1
    scores = read_scores(folder, ["exact", "blurred"])
    assert scores is not None
    assert ("test part", 300) == (scores.rows, len(scores.of["exact"]))
    assert pytest.approx(quality.value) == scores.of["blurred"].mean()


def test_counterparts_are_built_only_where_asked_for(sides: FamilySpec, repository: Repository) -> None:
    """They are in the revision beside what they are compared with, after all others, and are not loaded."""

    def alone(context: BuildContext, data: Dataset) -> Iterator[Candidate]:
        [exact, _] = sides.build(context, data)
        yield replace(exact, name="alone", counterpart="exact")

    spec = replace(sides, counterparts=alone)
    assert ["exact", "blurred"] == [variant.name for variant in build(spec, repository).manifest.variants]
    revision = build(spec, repository, counterparts=True)
    assert ["exact", "blurred", "alone"] == [variant.name for variant in revision.manifest.variants]
    assert ("exact", False) == (
        revision.manifest.variants[2].counterpart,
        revision.manifest.variants[2].load_by_default,
    )
    assert "seconds.counterparts" in revision.manifest.build
    with pytest.raises(BuildError, match=r"^sides: has no counterparts to train"):
        build(sides, repository, counterparts=True)


def test_another_task_is_refused(sides: FamilySpec, repository: Repository) -> None:
    """A family of a task that cannot be served is not built."""
    with pytest.raises(BuildError, match=r"^sides: task 'regression': only families of the task classification"):
        build(replace(sides, task="regression"), repository)


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


def test_two_builds_in_one_second_are_two_revisions(sides: FamilySpec, repository: Repository) -> None:
    """The name of a revision says when it was built and is its own nonetheless."""
    built = [build(sides, repository).manifest for _ in range(2)]
    assert sorted(manifest.revision for manifest in built) == list(repository.revisions("sides"))
    for manifest in built:
        assert re.fullmatch(rf"{manifest.created:%Y%m%d-%H%M%S}-[0-9a-f]{{4}}", manifest.revision)


def test_an_interrupt_leaves_nothing_half(sides: FamilySpec, repository: Repository) -> None:
    """After Ctrl-C the revision before is active and whole, and no staging folder is left."""
    before = build(sides, repository)
    with pytest.raises(KeyboardInterrupt):
        build(with_candidate(sides, failing(KeyboardInterrupt())), repository)
    assert before.manifest.revision == repository.active("sides")
    assert {"ACTIVE", before.manifest.revision} == {path.name for path in (repository.root / "sides").iterdir()}


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
