"""What rows scored is kept with the revision, and pieced together where an older build did not keep it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.service.families import ROWS, sign_model, write_family
from variants.manifest import FamilyManifest
from variants.repository import Repository, RevisionFolder
from variants.scores import Scores, read_scores, save_scores


def with_scores(folder: RevisionFolder, **scores: list[float]) -> RevisionFolder:
    """The revision as if its build had stored these scores."""
    fields = folder.manifest.model_dump()
    for variant in fields["variants"]:
        variant["scores_file"] = f"{variant['name']}/scores.npz"
    for name, values in scores.items():
        save_scores(folder.path / name / "scores.npz", np.array(values))
    return RevisionFolder(folder.path, FamilyManifest.model_validate(fields))


@pytest.fixture
def pair(tmp_path: Path) -> RevisionFolder:
    write_family(Repository(tmp_path), "sign", {"quick": (sign_model(), 0.8), "better": (sign_model(), 0.9)})
    return Repository(tmp_path).open("sign")


def known(folder: RevisionFolder) -> Scores:
    found = read_scores(folder, ["quick", "better"])
    assert found is not None
    return found


@pytest.mark.parametrize("values", [[0.0, 1.0, 1.0], [0.25, 0.5, -1.5]])
def test_scores_survive_their_file(pair: RevisionFolder, values: list[float]) -> None:
    """Right and wrong, or graded: what was stored is read, as numbers of the test part."""
    found = known(with_scores(pair, quick=values, better=values))
    assert ("test part", values) == (found.rows, found.of["quick"].tolist())


def test_an_older_revision_has_its_calibration(pair: RevisionFolder) -> None:
    """Without stored scores, the validation part and the kept samples stand in, and are named."""
    found = known(pair)
    assert "validation part and kept samples" == found.rows
    assert [0.8, 0.9] == [values[:ROWS].mean() for values in found.of.values()]
    assert [2 * ROWS] * 2 == [len(values) for values in found.of.values()]


@pytest.mark.parametrize("damage", ["missing", "rubbish", "of other rows"])
def test_scores_that_cannot_be_used_are_as_if_none_were_stored(pair: RevisionFolder, damage: str) -> None:
    """A file that is missing, damaged or of other rows costs no more than what it would have told."""
    folder = with_scores(pair, quick=[0.0, 1.0], better=[1.0] if damage == "of other rows" else [1.0, 1.0])
    path = folder.file("better/scores.npz")
    if damage == "missing":
        path.unlink()
    elif damage == "rubbish":
        path.write_bytes(b"rubbish")
    assert "validation part and kept samples" == known(folder).rows


def test_nothing_known_is_none(pair: RevisionFolder) -> None:
    """Where calibration is damaged too, there is nothing to compare by."""
    pair.file("quick/calibration.npz").write_bytes(b"")
    assert None is read_scores(pair, ["quick", "better"])
