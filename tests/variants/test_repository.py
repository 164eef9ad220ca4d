"""Readers of the repository see whole revisions only, and what is damaged is refused by name."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from variants.manifest import FamilyManifest
from variants.repository import Repository, RepositoryError, RevisionFolder


def test_a_published_revision_is_found_whole(repository: Repository, tiny: RevisionFolder) -> None:
    """After publishing, the family is listed, its revision is active and every file verifies."""
    assert ("tiny",) == repository.families()
    assert ("1",) == repository.revisions("tiny")
    assert "1" == repository.active("tiny")
    opened = repository.open("tiny")
    assert tiny.manifest == opened.manifest
    assert {} == opened.verify()
    on_disk = {path.relative_to(tiny.path).as_posix() for path in tiny.path.rglob("*") if path.is_file()}
    assert on_disk == {entry.path for entry in opened.manifest.files} | {"family.json"}


def test_a_second_revision_becomes_active_and_the_first_stays(
    repository: Repository, publish_tiny: Callable[[str], RevisionFolder]
) -> None:
    """Publishing activates the new revision; the older one can be opened and activated again."""
    publish_tiny("1")
    publish_tiny("2")
    assert "2" == repository.open("tiny").manifest.revision
    assert "1" == repository.open("tiny", "1").manifest.revision
    repository.activate("tiny", "1")
    assert "1" == repository.active("tiny")


def test_a_revision_is_never_overwritten(repository: Repository, publish_tiny: Callable[[str], RevisionFolder]) -> None:
    """Publishing a revision that exists is refused and leaves it and nothing else behind."""
    publish_tiny("1")
    with pytest.raises(RepositoryError, match="exists already"):
        publish_tiny("1")
    assert {} == repository.open("tiny").verify()
    assert {"1", "ACTIVE"} == {path.name for path in (repository.root / "tiny").iterdir()}


@pytest.mark.parametrize("kind", [RuntimeError, KeyboardInterrupt])
def test_a_failed_build_leaves_nothing(repository: Repository, kind: type[BaseException]) -> None:
    """An exception in the staging block, an interrupt as well, removes the staging folder."""

    def build() -> None:
        with repository.new_staging("tiny") as staging:
            (staging / "half.onnx").write_bytes(b"x")
            raise kind

    with pytest.raises(kind):
        build()
    assert [] == list((repository.root / "tiny").iterdir())
    assert () == repository.families()


def test_publishing_without_a_needed_file_is_refused(repository: Repository, tiny_fields: dict[str, Any]) -> None:
    """A manifest that names files which are not in the staging folder is not published."""
    manifest = FamilyManifest.model_validate(tiny_fields)
    with repository.new_staging("tiny") as staging:
        (staging / "small").mkdir()
        (staging / "small" / "model.onnx").write_bytes(b"x")
        with pytest.raises(RepositoryError, match="is not among the revision's files"):
            repository.publish(manifest, staging)
    assert () == repository.families()


@pytest.mark.parametrize("in_the_way", ["models", "models/tiny"])
def test_a_folder_that_cannot_be_made_is_named(repository: Repository, tmp_path: Path, in_the_way: str) -> None:
    """A file where a folder should be, like a disk that is full or read-only, is one line with the path."""
    path = tmp_path / in_the_way
    path.parent.mkdir(exist_ok=True)
    path.write_text("")

    def build() -> None:
        with repository.new_staging("tiny"):
            raise AssertionError("there is nothing to build in")

    with pytest.raises(RepositoryError, match=r"^[^\n]*/models/tiny: cannot be written: [^\n]+; check [^\n]+$"):
        build()


def test_a_lost_race_for_the_name_is_named(
    repository: Repository, publish_tiny: Callable[[str], RevisionFolder]
) -> None:
    """A revision whose place is taken between the look and the rename is refused in one line, and nothing is active."""
    (repository.root / "tiny").mkdir(parents=True)
    (repository.root / "tiny" / "1").symlink_to("nowhere")
    with pytest.raises(RepositoryError, match=r"^[^\n]*/models/tiny/1: cannot be written: Not a directory; [^\n]+$"):
        publish_tiny("1")
    assert () == repository.families()


def test_an_active_revision_that_cannot_be_replaced_is_named(
    repository: Repository, publish_tiny: Callable[[str], RevisionFolder]
) -> None:
    """A folder in place of `ACTIVE` is one line with its path."""
    (repository.root / "tiny" / "ACTIVE").mkdir(parents=True)
    with pytest.raises(RepositoryError, match=r"^[^\n]*/tiny/ACTIVE: cannot be written: Is a directory; [^\n]+$"):
        publish_tiny("1")


def test_a_link_is_not_published(repository: Repository, tiny_fields: dict[str, Any], tmp_path: Path) -> None:
    """A symbolic link in the staging folder is refused, since its target is not part of the revision."""
    manifest = FamilyManifest.model_validate(tiny_fields)
    with repository.new_staging("tiny") as staging:
        (staging / "link.onnx").symlink_to(tmp_path)
        with pytest.raises(RepositoryError, match="not a regular file"):
            repository.publish(manifest, staging)


def test_leftovers_of_interrupted_writers_are_ignored_and_old_ones_removed(
    repository: Repository, tiny: RevisionFolder
) -> None:
    """Temporary names are no families or revisions; day-old staging folders go with the next build, fresh ones stay."""
    family = tiny.path.parent
    (repository.root / ".tmp-family").mkdir()
    (repository.root / "never-published").mkdir()
    (family / ".ACTIVE-1234").write_text("9")
    (family / "half-revision").mkdir()
    fresh, old = family / ".staging-fresh", family / ".staging-old"
    for staging in (fresh, old):
        staging.mkdir()
        (staging / "family.json").write_text("{}")
    two_days_ago = time.time() - 2 * 86400
    os.utime(old, (two_days_ago, two_days_ago))
    assert ("tiny",) == repository.families()
    assert ("1",) == repository.revisions("tiny")
    with repository.new_staging("tiny"):
        assert [True, False] == [fresh.exists(), old.exists()]


@pytest.mark.parametrize(
    ("damage", "fault"),
    [
        (lambda path: path.unlink(), "is missing"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "bytes, expected"),
        (lambda path: path.write_bytes(bytes(path.stat().st_size)), "has the wrong SHA-256"),
        (lambda path: (path.unlink(), path.mkdir()), "bytes, expected|cannot be read"),
        (lambda path: (path.unlink(), path.symlink_to("/etc/hostname")), "leads out of the revision's folder"),
    ],
)
@pytest.mark.parametrize(("file", "refused"), [("big/model.onnx", ["big"]), ("stages/trunk.onnx", ["big", "small"])])
def test_a_damaged_file_refuses_its_dependants_alone(
    tiny: RevisionFolder, file: str, refused: list[str], damage: Callable[[Path], object], fault: str
) -> None:
    """A file that is missing, cut, changed or redirected refuses the variants that need it, with the reason."""
    damage(tiny.file(file).absolute())
    reasons = tiny.verify()
    assert refused == sorted(reasons)
    for reason in reasons.values():
        assert re.fullmatch(f"{re.escape(file)}: .*({fault}).*", reason)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "Invalid JSON"),
        ('{"schema_version": 1, "name": "ti', "Invalid JSON"),
        ("{}", "Field required"),
        ("[]", "object"),
        ("\x00\xff", "Invalid JSON"),
    ],
)
def test_a_half_written_manifest_is_named(
    repository: Repository, tiny: RevisionFolder, text: str, message: str
) -> None:
    """A manifest that is empty, cut or of the wrong shape raises one line with the file."""
    (tiny.path / "family.json").write_text(text)
    with pytest.raises(RepositoryError, match=message) as caught:
        repository.open("tiny")
    assert str(tiny.path / "family.json") in str(caught.value)
    assert 1 == len(str(caught.value).splitlines())


def test_a_fault_in_a_manifest_names_its_field(repository: Repository, tiny: RevisionFolder) -> None:
    """The message for a value out of range holds the path of the field."""
    path = tiny.path / "family.json"
    fields = json.loads(path.read_text())
    fields["variants"][1]["model_file"] = "../../secret.onnx"
    path.write_text(json.dumps(fields))
    with pytest.raises(RepositoryError, match=r"variants\.1\.model_file: .*'../../secret.onnx'"):
        repository.open("tiny")


def test_a_manifest_in_the_wrong_place_is_refused(repository: Repository, tiny: RevisionFolder) -> None:
    """A revision that was copied under another name is not what its folder claims."""
    tiny.path.rename(tiny.path.with_name("7"))
    with pytest.raises(RepositoryError, match="is the manifest of tiny/1"):
        repository.open("tiny", "7")


def test_what_is_not_there_is_said_with_what_is(repository: Repository, tiny: RevisionFolder) -> None:
    """Unknown families and revisions are answered with the names that exist."""
    with pytest.raises(
        RepositoryError, match=r"no family 'other' here \(families: tiny\); `pareto build` or `pareto import` adds one$"
    ):
        repository.open("other")
    with pytest.raises(RepositoryError, match=r"no revision '9' here \(revisions: 1\)"):
        repository.open("tiny", "9")
    for family, revision in (("../tiny", None), ("tiny", "../1"), ("", None)):
        with pytest.raises(RepositoryError, match="is not a name of a"):
            repository.open(family, revision)


def test_a_broken_pointer_is_named(repository: Repository, tiny: RevisionFolder) -> None:
    """An `ACTIVE` file that is no name of a revision is refused instead of followed."""
    (tiny.path.parent / "ACTIVE").write_text("../../elsewhere\n")
    with pytest.raises(RepositoryError, match="does not name a revision"):
        repository.open("tiny")


def test_samples_come_as_requests_bring_them(tiny: RevisionFolder, words: RevisionFolder) -> None:
    """Numbers come as they are, text as UTF-8 bytes, each with its label."""
    samples = tiny.samples()
    assert ((20, 4), "float32", (20,)) == (samples["x"].shape, str(samples["x"].dtype), samples["label"].shape)
    assert [b"good day", b"bad day"] == words.samples()["text"][:2].tolist()


def test_samples_in_utf8_arrays_are_read_alike(words: RevisionFolder) -> None:
    """Text stored as fixed-width bytes gives the same samples as text stored as unicode."""
    texts = ["schön", "日本"]
    expected = [text.encode() for text in texts]
    for stored in (np.array(texts), np.array(expected)):
        np.savez(words.path / "samples.npz", text=stored, label=np.zeros(2, np.int64))
        assert expected == words.samples()["text"].tolist()


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"label": np.zeros(2)}, "has no array 'x'"),
        ({"x": np.zeros((2, 4)), "label": np.zeros(3)}, "differ in length"),
        ({"x": np.array([object()]), "label": np.zeros(1)}, "cannot be read as arrays"),
    ],
)
def test_unusable_samples_are_named(tiny: RevisionFolder, arrays: dict[str, Any], message: str) -> None:
    """Samples that lack an array, disagree in length or hold pickled objects raise one line with the file."""
    np.savez(tiny.path / "samples.npz", **arrays)
    with pytest.raises(RepositoryError, match=message):
        tiny.samples()


def test_a_cut_archive_is_named(tiny: RevisionFolder) -> None:
    """A truncated calibration raises one line with the file."""
    path = tiny.path / "big" / "calibration.npz"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(RepositoryError, match=r"big/calibration\.npz: cannot be read as arrays"):
        tiny.calibration("big")


def test_calibration_has_both_parts(tiny: RevisionFolder) -> None:
    """A calibration gives answers for the validation part and for the samples, in the documented types."""
    calibration = tiny.calibration("small")
    assert (10, 20) == (len(calibration.confidence), len(calibration.sample_confidence))
    assert ("int64", "float32") == (str(calibration.predicted.dtype), str(calibration.confidence.dtype))


def test_calibration_parts_agree(tiny: RevisionFolder) -> None:
    """A calibration whose arrays differ in length is refused."""
    ones = np.ones(3)
    # Unformatted: the arrays side by side.
    np.savez(
        tiny.path / "big" / "calibration.npz",
        label=ones, predicted=ones[:2], confidence=ones, sample_predicted=ones, sample_confidence=ones,
    )  # fmt: skip
    with pytest.raises(RepositoryError, match="differ in length"):
        tiny.calibration("big")
