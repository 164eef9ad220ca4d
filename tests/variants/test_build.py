"""Building a family: from one Python file to a published revision."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.variants.built import WEIGHTS, build, failing, with_candidate
from variants.measurements import Training
from variants.recipes.artifact import Artifact
from variants.repository import Repository
from variants.scores import read_scores
from variants.spec import BuildContext, BuildError, Candidate, Dataset, FamilySpec


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


def test_what_variants_share_is_stored_once(
    sides: FamilySpec, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two variants of the same weights refer to one file, a third one to its own; nothing is left behind."""
    monkeypatch.setattr("variants.sharing.LEAST_BYTES", WEIGHTS.nbytes)

    def twice(context: BuildContext, data: Dataset) -> Iterator[Candidate]:
        for candidate in sides.build(context, data):
            yield candidate
            if candidate.name == "exact":
                yield replace(candidate, name="again")

    revision = build(replace(sides, build=twice), repository)
    files = {variant.name: variant.model_file for variant in revision.manifest.variants}
    assert files == {name: f"graphs/{name}.onnx" for name in files}
    parts = {name: revision.manifest.parts_of(file).files for name, file in files.items()}
    assert parts["exact"] == parts["again"] != parts["blurred"]
    assert {} == revision.verify()
    held = revision.file(parts["exact"][0])
    assert WEIGHTS.nbytes == held.stat().st_size
    assert {*parts["exact"], *parts["blurred"], *files.values()} == {
        entry.path for entry in revision.manifest.files if entry.path.endswith((".onnx", ".bin"))
    }
    held.write_bytes(bytes(WEIGHTS.nbytes))
    assert {"exact", "again"} == revision.verify().keys()
