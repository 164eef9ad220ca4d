from __future__ import annotations

import math
import pickle
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from tests.networks import digits, encoder, perceptron, sentences
from variants.recipes.supervised import Supervised
from variants.session import open_session
from variants.training.checkpoint import Checkpoint
from variants.training.export import export_model
from variants.training.keeping import kept_model
from variants.training.model import Model, accuracy
from variants.training.recipe import Job, Pipeline, Recipe, Run
from variants.training.settings import FitSettings

QUICK = FitSettings(epochs=3, batch=50, rate=1e-2)


def same_weights(first: nn.Module, second: nn.Module) -> bool:
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    return all(torch.equal(one, other) for one, other in pairs)


@dataclass(frozen=True, slots=True)
class Halve(Recipe):
    """Halves all weights and trains nothing."""

    name: ClassVar[str] = "halving"

    times: int = 1

    def apply(self, module: nn.Module, job: Job) -> nn.Module:
        with torch.no_grad():
            for weight in module.parameters():
                weight.mul_(0.5**self.times)
        job.measures["factor"] = 0.5**self.times
        return module


def test_training_learns_and_leaves_the_given_model_alone() -> None:
    """The trained model is far better than chance on rows it has not seen; the model it was made from is unchanged."""
    untrained = perceptron()
    trained = Supervised(replace(QUICK, epochs=20))(untrained, digits())
    assert accuracy(trained.module, digits().validation) > 0.8
    assert same_weights(perceptron().module, untrained.module)
    assert untrained.lineage == ()


def test_a_step_says_what_was_done() -> None:
    """Recipe, settings, seed, epochs, labelled rows, seconds, memory and weights are in the lineage."""
    (step,) = Supervised(QUICK)(perceptron(), digits(), Run(seed=7)).lineage
    assert ("training", 7, 400, 1210) == (step.recipe, step.seed, step.labelled_rows, step.parameters)
    assert {"fit.epochs": 3, "fit.rate": 1e-2, "fit.optimizer": "adamw"}.items() <= step.settings.items()
    assert step.measures["epochs"] == 3.0
    assert step.seconds > 0.0
    assert step.peak_rss_bytes > 50e6
    assert str(step) == "training (fit.epochs 3, fit.batch 50, fit.rate 0.01)"


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_one_seed_gives_one_network(optimizer: str) -> None:
    """The same seed gives the same weights, another seed others, whatever was drawn before."""
    recipe = Supervised(replace(QUICK, optimizer=optimizer))  # type: ignore[arg-type]  # a literal
    first = recipe(perceptron(), digits(), Run(seed=1))
    torch.rand(3)
    assert same_weights(first.module, recipe(perceptron(), digits(), Run(seed=1)).module)
    assert not same_weights(first.module, recipe(perceptron(), digits(), Run(seed=2)).module)


def test_a_recipe_draws_nothing_from_the_callers_generator() -> None:
    """Training between two draws does not change the second."""
    untrained = perceptron()
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    Supervised(QUICK)(untrained, digits())
    assert torch.equal(expected, torch.rand(2))


def test_recipes_compose() -> None:
    """A pipeline is its recipes in turn, however it was put together; the lineage has all steps, oldest first."""
    left = (Halve() >> Halve(2)) >> Halve(3)
    right = Halve() >> (Halve(2) >> Halve(3))
    assert left == right == Pipeline((Halve(), Halve(2), Halve(3)))
    made = left(perceptron(), digits(), Run(seed=4))
    assert ("perceptron", "halving", "halving (times 2)", "halving (times 3)") == made.history
    assert [4, 5, 6] == [step.seed for step in made.lineage]
    expected = perceptron().module.state_dict()["1.weight"] / 64
    assert torch.equal(expected, made.module.state_dict()["1.weight"])


def test_facts_add_up_what_steps_cost() -> None:
    """Seconds are a sum; labelled rows and memory, which steps share, are the most of any."""
    made = (Supervised(QUICK) >> Halve() >> Supervised(QUICK))(perceptron(), digits())
    assert made.facts["labelled_rows"] == 400.0
    assert math.isclose(made.facts["training_s"], sum(step.seconds for step in made.lineage), abs_tol=1e-3)
    assert made.facts["training_peak_rss_bytes"] == max(step.peak_rss_bytes for step in made.lineage)


def test_progress_rises_to_one() -> None:
    """What is reported never falls, over all steps, and ends at 1."""
    seen: list[float] = []
    (Supervised(QUICK) >> Supervised(QUICK))(perceptron(), digits(), Run(progress=seen.append))
    assert seen == sorted(seen)
    assert seen[-1] == 1.0
    assert len(seen) > 2 * 3 * 8


class _InterruptedError(Exception):
    """Stands for Ctrl-C."""


def interrupting(share: float) -> Run:
    def progress(done: float) -> None:
        if done > share:
            raise _InterruptedError

    return Run(seed=1, progress=progress)


@pytest.mark.parametrize("share", [0.2, 0.45, 0.7, 0.95])
def test_interrupted_training_goes_on_to_the_same_network(tmp_path: Path, share: float) -> None:
    """Two steps, interrupted in any epoch of either and run again, end in the weights of an undisturbed run."""
    recipe = Supervised(replace(QUICK, patience=3)) >> Supervised(QUICK)
    expected = recipe(perceptron(), digits(), Run(seed=1))
    with pytest.raises(_InterruptedError):
        recipe(perceptron(), digits(), replace(interrupting(share), checkpoints=tmp_path / "kept"))
    assert any((tmp_path / "kept").rglob("*.pt"))
    resumed: list[float] = []
    run = Run(seed=1, progress=resumed.append, checkpoints=tmp_path / "kept")
    actual = recipe(perceptron(), digits(), run)
    assert same_weights(expected.module, actual.module)
    assert min(resumed) > share - 1 / 6
    assert not (tmp_path / "kept").exists()


def test_only_what_it_wrote_is_removed(tmp_path: Path) -> None:
    """A folder of checkpoints that holds other things keeps them; a folder of its own is gone afterwards."""
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "weights.safetensors").write_bytes(b"precious")
    recipe = Supervised(QUICK) >> Halve()
    recipe(perceptron(), digits(), Run(checkpoints=tmp_path / "kept"))
    recipe(perceptron(), digits(), Run(checkpoints=tmp_path / "own"))
    assert ["kept", "kept/weights.safetensors"] == sorted(
        path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")
    )


def test_checkpoints_of_other_settings_count_as_none(tmp_path: Path) -> None:
    """An unfinished run is not continued with another learning rate."""
    kept = replace(interrupting(0.7), checkpoints=tmp_path)
    with pytest.raises(_InterruptedError):
        Supervised(QUICK)(perceptron(), digits(), kept)
    other = Supervised(replace(QUICK, rate=2e-2))
    actual = other(perceptron(), digits(), Run(seed=1, checkpoints=tmp_path))
    assert same_weights(other(perceptron(), digits(), Run(seed=1)).module, actual.module)


def test_files_of_something_else_count_as_none(tmp_path: Path) -> None:
    """A kept model of other fields, and a file that is no checkpoint, are replaced; neither ends the build."""
    model = perceptron()
    torch.save({"key": "a", "model": {"name": "old", "colour": 1}}, tmp_path / "model.pt")
    assert model is kept_model(tmp_path / "model.pt", "a", lambda: model)
    torch.save([1, 2], tmp_path / "fit-1.pt")
    checkpoint = Checkpoint(tmp_path / "fit-1.pt", "key", {"module": model.module}, torch.Generator())
    assert 0 == checkpoint.restore()


def test_a_kept_model_is_made_once(tmp_path: Path) -> None:
    """The same key gives the kept model with its lineage; another key, or a broken file, makes it anew."""
    made: list[int] = []

    def make() -> Model:
        made.append(1)
        return Halve()(perceptron(), digits())

    first = kept_model(tmp_path / "model.pt", "a", make)
    again = kept_model(tmp_path / "model.pt", "a", make)
    assert (1, first.history) == (len(made), again.history)
    assert same_weights(first.module, again.module)
    kept_model(tmp_path / "model.pt", "b", make)
    (tmp_path / "model.pt").write_bytes(pickle.dumps("something else")[:5])
    kept_model(tmp_path / "model.pt", "b", make)
    assert len(made) == 3


def test_early_stop_keeps_the_best_epoch() -> None:
    """With patience, training ends early and the weights are those with the best validation accuracy."""
    patient = FitSettings(epochs=30, batch=50, rate=1e-2, patience=2)
    made = Supervised(patient)(perceptron(), digits(), Run(seed=1))
    (step,) = made.lineage
    assert step.measures["epochs"] < 30
    assert step.measures["validation_accuracy"] == accuracy(made.module, digits().validation)
    best = 0.0
    for epochs in range(1, int(step.measures["epochs"]) + 1):
        # A constant rate makes a shorter run the beginning of a longer one.
        run = Supervised(replace(patient, epochs=epochs, schedule="constant", patience=None))
        best = max(best, run(perceptron(), digits(), Run(seed=1)).lineage[0].measures["validation_accuracy"])
    constant = Supervised(replace(patient, epochs=int(step.measures["epochs"]), schedule="constant", patience=99))
    assert constant(perceptron(), digits(), Run(seed=1)).lineage[0].measures["validation_accuracy"] == best


def test_a_loss_that_is_no_number_is_an_error() -> None:
    """A learning rate that blows up ends in one line that says what to do."""
    with pytest.raises(FloatingPointError, match=r"choose a rate below 1e\+30"):
        Supervised(FitSettings(epochs=3, rate=1e30, optimizer="sgd", clip_norm=None))(perceptron(), digits())


@pytest.mark.parametrize(
    "wrong", [{"epochs": -1}, {"batch": 0}, {"rate": 0.0}, {"warm_up": 1.0}, {"label_smoothing": 1.0}]
)
def test_settings_that_train_nothing_are_refused(wrong: dict[str, float]) -> None:
    """Impossible numbers are an error where they are written, not when training starts."""
    with pytest.raises(ValueError, match=next(iter(wrong))):
        FitSettings(**wrong)  # type: ignore[arg-type]  # the table has whole numbers and others


@given(done=st.floats(0.0, 1.0), warm_up=st.floats(0.0, 0.9), schedule=st.sampled_from(["one-cycle", "cosine"]))
def test_the_rate_rises_then_falls(done: float, warm_up: float, schedule: str) -> None:
    """The share of the rate lies in (0, 1], is 1 at the end of warm-up and almost 0 at the end."""
    settings = FitSettings(warm_up=warm_up, schedule=schedule)  # type: ignore[arg-type]  # one of two literals
    peak = warm_up if schedule == "one-cycle" else 0.0
    assert 0.0 < settings.share_of_rate(done) <= 1.0
    assert settings.share_of_rate(peak) == 1.0
    assert settings.share_of_rate(1.0) < 2e-3
    later = min(1.0, done + 0.05)
    if done >= peak:
        assert settings.share_of_rate(later) <= settings.share_of_rate(done)


def test_the_export_answers_as_the_module_does(tmp_path: Path) -> None:
    """The ONNX file takes any number of rows and tokens, gives the module's logits, and carries lineage and facts."""
    model = Supervised(replace(QUICK, epochs=1))(encoder(), sentences())
    artifact = export_model(model, tmp_path / "model.onnx")
    assert model.history == artifact.lineage
    assert (model.parameters, model.facts) == (artifact.parameters, artifact.facts)
    session = open_session(artifact.path)
    for rows in (1, 7):
        ids, mask = sentences().validation.take(torch.arange(rows)).inputs
        feeds = {"input_ids": ids.numpy(), "attention_mask": mask.numpy()}
        assert abs(session.run(feeds)["logits"] - model.reference()(feeds)).max() < 1e-4
