from __future__ import annotations

import errno
import io
import os
import re
import resource
import textwrap
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from tests.variants.sides import SIDES
from variants.build import build_family
from variants.families import load_family
from variants.manifest import TensorSpec
from variants.measurements import Training
from variants.progress import LineDisplay
from variants.recipes.artifact import Artifact
from variants.repository import Repository
from variants.scores import read_scores
from variants.spec import BuildContext, BuildError, Candidate, Dataset, FamilySpec

FACTOR = np.float32(1e4)
WEIGHTS = np.array([[-1, 1], [-1, 1]], dtype=np.float32)


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


@pytest.mark.parametrize(("trains", "stages"), [(True, ["data", "train", "variants"]), (False, ["data", "variants"])])
def test_a_stage_is_called_training_where_something_is_trained(
    trains: bool, stages: list[str], sides: FamilySpec, repository: Repository
) -> None:
    """A family whose model comes as it is shows no such stage, and none is in the manifest."""
    output = io.StringIO()
    revision = build(replace(sides, trains=trains), repository, output)
    shown = [line.split(": ")[1].split(",")[0] for line in output.getvalue().splitlines() if line.startswith("build: ")]
    assert [*stages, "evaluate", "profile", "publish"] == list(dict.fromkeys(shown))
    timed = [fact.removeprefix("seconds.") for fact in revision.manifest.build if fact.startswith("seconds.")]
    assert [*stages, "evaluate", "profile"] == timed


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


def test_rows_that_cannot_be_prepared_are_named(sides: FamilySpec, repository: Repository) -> None:
    """Data that preparation refuses is the family's fault, told with the part and the row."""

    def load(context: BuildContext) -> Dataset:
        data = sides.load(context)
        data.test.inputs["point"][7] = np.nan
        return data

    with pytest.raises(BuildError, match=r"^sides: the test part of the data: input 'point': row 7 holds a value"):
        build(replace(sides, load=load), repository)


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


def test_what_variants_share_is_stored_once(
    sides: FamilySpec, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two variants of the same weights refer to one file; a third one stays whole; nothing is left behind."""
    monkeypatch.setattr("variants.sharing.LEAST_BYTES", WEIGHTS.nbytes)

    def twice(context: BuildContext, data: Dataset) -> Iterator[Candidate]:
        for candidate in sides.build(context, data):
            yield candidate
            if candidate.name == "exact":
                yield replace(candidate, name="again")

    revision = build(replace(sides, build=twice), repository)
    files = {variant.name: variant.model_file for variant in revision.manifest.variants}
    shared = {"exact": "graphs/exact.onnx", "again": "graphs/again.onnx"}
    assert {**shared, "blurred": "blurred/model.onnx"} == files
    parts = [revision.manifest.parts_of(files[name]).files for name in ("exact", "again")]
    assert parts[0] == parts[1] != ()
    assert {} == revision.verify()
    held = revision.file(parts[0][0])
    assert WEIGHTS.nbytes == held.stat().st_size
    assert {held.relative_to(revision.path).as_posix(), *files.values()} == {
        entry.path for entry in revision.manifest.files if entry.path.endswith((".onnx", ".bin"))
    }
    held.write_bytes(bytes(WEIGHTS.nbytes))
    assert {"exact", "again"} == revision.verify().keys()
