"""A family of images made here, built the way `fashion` is: three rungs, a few hundred rows, no download."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.quarters import LABELS as QUARTERS
from tests.quarters import bright_quarters, trainer_of_quarters
from variants.architectures.image import ImageArchitecture
from variants.architectures.perceptron import Perceptron
from variants.architectures.residual import ResidualNet
from variants.architectures.rung import Rung
from variants.architectures.vision_transformer import VisionTransformer
from variants.build import build_family
from variants.families import load_family
from variants.families.fashion.data import INPUT, LABELS
from variants.families.fashion.ladder import LADDER, plainly
from variants.families.fashion.recipe import LadderOfImages
from variants.preparation import LOGITS, open_preparation
from variants.profiling import load_profile
from variants.repository import Repository
from variants.revision import RevisionFolder
from variants.session import open_session
from variants.spec import FamilySpec

RUNGS = (
    Rung("linear", Perceptron(), plainly(2), 1),
    Rung("residual", ResidualNet(widths=(4, 8), blocks=(1, 1), side=14), plainly(10, rate=1e-2), 2, int8=True),
    Rung("vit", VisionTransformer(width=32, depth=1, patch=7), plainly(2), 1, int8=True),
)


def quarters(rungs: tuple[Rung, ...] = RUNGS) -> FamilySpec:
    return LadderOfImages(rungs, bright_quarters).family(
        name="quarters", description="which quarter is bright?", labels=QUARTERS, default_slo_s=0.05
    )


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def revision(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> RevisionFolder:
    folder = tmp_path_factory.mktemp("quarters")
    build_family(quarters(), Repository(folder), cache=cache)
    return Repository(folder).open("quarters")


def test_every_rung_is_made_in_its_precisions(revision: RevisionFolder) -> None:
    """All rungs are there in fp32, those that ask for it in int8 too, and the residual one has learnt the task."""
    variants = {variant.name: variant for variant in revision.manifest.variants}
    assert {"linear-fp32", "residual-fp32", "vit-fp32", "residual-int8", "vit-int8"} == set(variants)
    assert variants["residual-fp32"].quality.value > 0.9
    assert variants["residual-int8"].quality.value > 0.9
    assert "static int8" in variants["residual-int8"].lineage
    assert "row-wise int8" in variants["vit-int8"].lineage


def test_images_of_bytes_are_answered_as_the_model_was_taught(revision: RevisionFolder) -> None:
    """The normalisation travels with the family: stored uint8 rows, prepared and run, give the stored predictions."""
    profile = load_profile(revision)
    assert profile is not None
    assert {variant.name for variant in revision.manifest.variants} == set(profile.variants)
    samples = revision.samples()
    samples.pop("label")
    assert np.uint8 == samples[INPUT].dtype
    preparer = open_preparation(revision)
    feeds = preparer.collate(preparer.prepare(samples).values)
    for name in ("linear-fp32", "residual-int8"):
        variant = revision.manifest.variant(name)
        logits = open_session(revision.file(variant.model_file)).run(feeds)[LOGITS]
        assert logits.argmax(axis=1).tolist() == revision.calibration(name).sample_predicted.tolist()


def test_a_second_build_trains_nothing(revision: RevisionFolder, cache: Path, tmp_path: Path) -> None:
    """What an earlier build trained is taken from the cache, with the seconds that it took then."""
    before = {path: path.stat().st_mtime_ns for path in cache.rglob("*.safetensors")}
    again = build_family(quarters(), Repository(tmp_path), cache=cache)
    assert before == {path: path.stat().st_mtime_ns for path in cache.rglob("*.safetensors")}
    assert len(RUNGS) == len(before)
    first = {variant.name: variant.quality for variant in revision.manifest.variants}
    assert first == {variant.name: variant.quality for variant in again.manifest.variants}


class _StoppedError(Exception):
    """Stands for Ctrl-C."""


def test_an_interrupted_training_goes_on_and_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    """Stopped in its last epoch and begun again, training gives the weights of an uninterrupted one."""
    rung = RUNGS[1]

    def stop(fraction: float) -> None:
        if fraction > 0.8:
            raise _StoppedError

    with pytest.raises(_StoppedError):
        trainer_of_quarters(tmp_path / "a").trained(rung.name, rung.architecture, rung.recipe, 3, advance=stop)
    seen: list[float] = []
    resumed = trainer_of_quarters(tmp_path / "a").trained(
        rung.name, rung.architecture, rung.recipe, 3, advance=seen.append
    )
    whole = trainer_of_quarters(tmp_path / "b").trained(rung.name, rung.architecture, rung.recipe, 3)
    assert min(seen) > 0.7
    for name, weights in whole.module.state_dict().items():
        assert np.array_equal(weights.numpy(), resumed.module.state_dict()[name].numpy()), name


@pytest.mark.parametrize(
    ("architecture", "epochs", "seed"),
    [(Perceptron(side=7), 1, 0), (Perceptron(), 2, 0), (Perceptron(), 1, 1)],
    ids=["architecture", "recipe", "seed"],
)
def test_another_description_is_another_training(
    tmp_path: Path, architecture: ImageArchitecture, epochs: int, seed: int
) -> None:
    """A kept network is used for its own architecture, recipe and seed alone; its lineage is kept with it."""
    trainer = trainer_of_quarters(tmp_path)
    first = trainer.trained("x", Perceptron(), plainly(1), 0)
    same = trainer.trained("x", Perceptron(), plainly(1), 0)
    assert first.lineage == same.lineage
    other = trainer.trained("x", architecture, plainly(epochs), seed)
    assert first.lineage != other.lineage


def test_fashion_is_a_family_that_comes_with_the_gateway() -> None:
    """Its spec loads without a download: ten labels, images of bytes, and rungs with names of their own."""
    family = load_family("fashion")
    assert len(LABELS) == len(family.labels) == 10
    assert ("UINT8", (-1, 28, 28)) == (family.inputs[0].datatype, family.inputs[0].shape)
    assert len(LADDER) == len({rung.name for rung in LADDER})
    assert len(LADDER) == len({replace(rung, name="").architecture for rung in LADDER})
