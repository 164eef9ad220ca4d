"""A built family's variants compete anew under another batch tolerance, with what was measured of them before."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from service import cli
from tests.ported import POINTS, built, extended
from variants.draft import check_spec
from variants.manifest import MANIFEST_FILE, PROFILES_FOLDER
from variants.measurements import Invariance
from variants.porting.ports import wanted_ports
from variants.profiles import load_profile
from variants.progress import LineDisplay
from variants.repository import Repository
from variants.reselection import reselect_family
from variants.revision import RevisionFolder
from variants.spec import BuildError

DEPENDS = "its answers depend on the rows that share the batch: probabilities move by 0.0028, more than 0.001"
MOVING = Invariance(invariant=False, label_flips=0.0, max_probability_delta=0.0028, compared_rows=128)


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """The family, of which the answers of `other` are said to move by 0.0028 with the batch."""
    repository = built(tmp_path)
    path = repository.open("points").path / MANIFEST_FILE
    fields = json.loads(path.read_text())
    for variant in fields["variants"]:
        if variant["name"] == "other":
            variant |= {"invariance": MOVING.model_dump(), "notes": f"by hand; {DEPENDS}", "on_frontier": False}
    path.write_text(json.dumps(fields))
    return repository


def selected(repository: Repository, tolerance: float) -> RevisionFolder:
    return reselect_family(repository, "points", tolerance, display=LineDisplay("select", io.StringIO()))


def build(repository: Repository, *more: str) -> Sequence[str]:
    return ["build", "points", "--models", str(repository.root), "--plain", *more]


def test_another_tolerance_is_another_revision(repository: Repository) -> None:
    """It has the files and the latencies of the one before, and who competes in it is decided anew."""
    before = repository.open("points")
    folder = selected(repository, 0.005)
    assert folder.manifest == repository.open("points").manifest
    assert (0.001, 0.005) == (before.manifest.batch_tolerance, folder.manifest.batch_tolerance)
    assert before.manifest.revision == folder.manifest.build["extended"]
    assert before.manifest.files == folder.manifest.files
    assert {} == folder.verify()
    profile, older = load_profile(folder), load_profile(before)
    assert profile is not None
    assert older is not None
    assert older.model_copy(update={"revision": profile.revision}) == profile
    assert DEPENDS not in folder.manifest.variant("other").notes
    assert f"by hand; {DEPENDS}" == selected(repository, 0.001).manifest.variant("other").notes


def test_what_it_has_already_is_left(repository: Repository) -> None:
    """The same tolerance once more makes no revision."""
    folder = selected(repository, 0.005)
    assert folder.manifest.revision == selected(repository, 0.005).manifest.revision
    assert 2 == len(repository.revisions("points"))


def test_profiles_of_other_machines_are_kept(repository: Repository) -> None:
    """What was measured elsewhere holds for the same variants in the new revision."""
    before = repository.open("points")
    profile = load_profile(before)
    assert profile is not None
    elsewhere = profile.model_copy(update={"fingerprint": "elsewhere"})
    (before.path / PROFILES_FOLDER / "elsewhere.json").write_text(elsewhere.model_dump_json())
    (before.path / PROFILES_FOLDER / "broken.json").write_text("{")
    folder = selected(repository, 0.005)
    kept = sorted(path.name for path in (folder.path / PROFILES_FOLDER).iterdir())
    assert sorted(["elsewhere.json", f"{profile.fingerprint}.json"]) == kept


def test_latencies_that_are_not_known_are_measured(repository: Repository) -> None:
    """A machine without a profile of all variants takes one, and nothing else is measured."""
    before = repository.open("points")
    for path in (before.path / PROFILES_FOLDER).iterdir():
        path.unlink()
    profile = load_profile(selected(repository, 0.005))
    assert profile is not None
    assert {"float", "other"} == set(profile.variants)


def test_what_competes_is_ported(repository: Repository) -> None:
    """A port is made of what is within the tolerance; with nothing to port the tolerance changes all the same."""
    variants = repository.open("points").manifest.variants
    assert ["float"] == [variant.name for variant, _ in wanted_ports(variants, ["openvino"])]
    assert ["float", "other"] == [variant.name for variant, _ in wanted_ports(variants, ["openvino"], (), 0.005)]
    folder = extended(repository, ["openvino"], batch_tolerance=0.005)
    assert ["float", "other", "float-openvino", "other-openvino"] == [one.name for one in folder.manifest.variants]
    assert 0.005 == folder.manifest.batch_tolerance
    again = extended(repository, ["openvino"], batch_tolerance=0.001)
    assert (0.001, DEPENDS) == (again.manifest.batch_tolerance, again.manifest.variant("other").notes.split("; ")[1])
    assert 0.001 == extended(repository, ["openvino"]).manifest.batch_tolerance
    assert 3 == len(repository.revisions("points"))


def test_the_command_selects_anew(repository: Repository, capsys: pytest.CaptureFixture[str]) -> None:
    """`pareto build` with a tolerance leaves what is built as it is, but for what is loaded by default."""
    assert 0 == cli.run(build(repository, "--batch-tolerance", "0.005"))
    assert 0.005 == repository.open("points").manifest.batch_tolerance
    assert "points: 2 variants in " in capsys.readouterr().err
    assert 0 == cli.run(build(repository, "--batch-tolerance", "0.005"))
    assert "points: has a batch tolerance of 0.005 already\n" == capsys.readouterr().err
    assert 0 == cli.run(build(repository))
    assert "points: is built already in " in capsys.readouterr().err
    assert 2 == len(repository.revisions("points"))


@pytest.mark.parametrize("tolerance", ["0", "0.5", "nan", "much"])
def test_a_tolerance_out_of_range_is_refused(
    repository: Repository, capsys: pytest.CaptureFixture[str], tolerance: str
) -> None:
    """One line, and no revision more."""
    assert 2 == cli.run(build(repository, "--batch-tolerance", tolerance))
    (line,) = capsys.readouterr().err.splitlines()
    assert "--batch-tolerance" in line
    assert 1 == len(repository.revisions("points"))


def test_a_spec_out_of_range_is_refused() -> None:
    """Before anything is trained, and by the name of the field."""
    check_spec(replace(POINTS, batch_tolerance=0.1))
    with pytest.raises(BuildError, match="points: the family's spec: batch_tolerance: "):
        check_spec(replace(POINTS, batch_tolerance=0.5))


def test_a_spec_says_how_far_answers_may_move(tmp_path: Path) -> None:
    """What a family's file says stands in the manifest."""
    assert 0.02 == built(tmp_path, replace(POINTS, batch_tolerance=0.02)).open("points").manifest.batch_tolerance


def test_a_revision_without_scores_is_not_selected_anew(repository: Repository) -> None:
    """Those of older builds cannot compete row by row: one line says what to do."""
    path = repository.open("points").path / MANIFEST_FILE
    fields = json.loads(path.read_text())
    for variant in fields["variants"]:
        variant["scores_file"] = None
    path.write_text(json.dumps(fields))
    with pytest.raises(BuildError, match=r"it does not have the scores of its variants; build it anew \(--force\)"):
        selected(repository, 0.005)
    assert 1 == len(repository.revisions("points"))
