from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from variants.build import build_family
from variants.families import load_family
from variants.preparation import LOGITS, open_preparation
from variants.profiling import load_profile
from variants.repository import Repository
from variants.revision import RevisionFolder
from variants.session import open_session


@pytest.fixture(scope="module")
def revision(tmp_path_factory: pytest.TempPathFactory) -> RevisionFolder:
    folder = tmp_path_factory.mktemp("digits")
    build_family(load_family("digits"), Repository(folder / "models"), cache=folder / "cache")
    return Repository(folder / "models").open("digits")


def test_digits_are_told_apart(revision: RevisionFolder) -> None:
    """Every variant is right on more than nine tenths of the test part, and none was left out."""
    variants = revision.manifest.variants
    names = ["linear-fp32", "mlp-fp32", "wide-fp32", "conv-fp32", "wide-int8", "conv-int8"]
    assert names == [variant.name for variant in variants]
    assert all(variant.quality.value > 0.9 for variant in variants)
    assert {497} == {variant.quality.samples for variant in variants}


def test_training_is_accounted_for(revision: RevisionFolder) -> None:
    """Every variant says how long its network trained, on how many labelled rows, and with how much memory."""
    for variant in revision.manifest.variants:
        assert variant.training is not None
        assert 1000 == variant.training.labelled_rows
        assert (variant.training.seconds or 0) > 0
        assert (variant.training.peak_memory_bytes or 0) > 1e6


def test_all_variants_answer_the_same_in_any_batch(revision: RevisionFolder) -> None:
    """fp32, row-wise and static int8 are all batch-invariant."""
    assert all(variant.invariance.invariant for variant in revision.manifest.variants)


def test_the_revision_is_whole(revision: RevisionFolder) -> None:
    """All files verify, and this machine's profile covers every variant."""
    profile = load_profile(revision)
    assert {} == revision.verify()
    assert profile is not None
    assert {variant.name for variant in revision.manifest.variants} == set(profile.variants)


def test_something_is_on_the_frontier_and_only_that_is_loaded(revision: RevisionFolder) -> None:
    """The most accurate variant is on the frontier; nothing off the frontier is loaded; what is left out says why."""
    variants = revision.manifest.variants
    best = max(variant.quality.value for variant in variants)
    assert any(variant.on_frontier and variant.quality.value == best for variant in variants)
    assert any(variant.load_by_default for variant in variants)
    for variant in variants:
        assert variant.on_frontier or not variant.load_by_default
        assert variant.load_by_default or variant.notes


def test_stored_answers_are_what_the_models_answer(revision: RevisionFolder) -> None:
    """For the rows of samples.npz, a session opened afresh gives the predictions and confidences that were stored."""
    samples = revision.samples()
    labels = samples.pop("label")
    preparer = open_preparation(revision)
    feeds = preparer.collate(preparer.prepare(samples).values)
    for variant in revision.manifest.variants:
        stored = revision.calibration(variant.name)
        logits = open_session(revision.file(variant.model_file)).run(feeds)[LOGITS]
        answers = preparer.decode(logits, variant.temperature)
        assert answers.labels.tolist() == stored.sample_predicted.tolist()
        np.testing.assert_allclose(answers.confidences, stored.sample_confidence, atol=1e-4)
        assert pytest.approx(variant.quality.value) == (answers.labels == labels).mean()


def test_a_second_build_is_a_revision_of_its_own(revision: RevisionFolder, tmp_path: Path) -> None:
    """The same seed gives the same accuracies again."""
    again = build_family(load_family("digits"), Repository(tmp_path), cache=tmp_path / "cache")
    first = {variant.name: variant.quality for variant in revision.manifest.variants}
    assert first == {variant.name: variant.quality for variant in again.manifest.variants}
