from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import optuna
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from optuna.trial import TrialState

from tests.quarters import held_out_quarters, trainer_of_quarters
from variants.architectures.perceptron import Perceptron
from variants.architectures.rung import Rung
from variants.architectures.trained import Trainer
from variants.families.fashion.ladder import LADDER, plainly
from variants.frontier import ParetoPoint, dominated_area
from variants.recipes.supervised import Supervised
from variants.search.architectures import ArchitectureSearch, best_of_quicker, first_rows
from variants.search.comparison import PASSES, Comparison, compare
from variants.search.hyperparameters import HyperparameterSearch
from variants.search.space import KINDS, parameters_of, suggest_architecture, suggest_settings
from variants.search.spread import spread, worst_of
from variants.search.study import counted, open_study, run_until
from variants.search.watched import WatchedTraining
from variants.strategies.bench import Bench
from variants.timing import TimingPlan
from variants.training.recipe import Run
from variants.training.settings import FitSettings

BRIEF = TimingPlan(batches=(1,), least=2, most=2, cell_s=0.01, total_s=5.0)
SETTINGS = FitSettings(epochs=2, batch=64)


def silent(_: object) -> None:
    """Nobody is told."""


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def trainer(tmp_path: Path) -> Trainer:
    return trainer_of_quarters(tmp_path / "weights")


@pytest.fixture
def validation(trainer: Trainer) -> Bench:
    return Bench(trainer.data.validation, BRIEF)


@given(
    st.sampled_from(KINDS),
    st.sampled_from([8, 12, 16, 24, 32]),
    st.integers(1, 3),
    st.integers(1, 2),
    st.sampled_from([14, 28]),
)
def test_every_choice_of_the_space_is_a_network(kind: str, width: int, stages: int, blocks: int, side: int) -> None:
    """Whatever is suggested can be built, answers, and comes back the same from the same parameters."""
    trial = optuna.trial.FixedTrial({"kind": kind, "width": width, "stages": stages, "blocks": blocks, "side": side})
    architecture = suggest_architecture(trial)
    assert architecture == suggest_architecture(trial)
    with torch.inference_mode():
        assert (2, 10) == tuple(architecture.network(10).eval()(torch.zeros(2, 28, 28)).shape)


def test_settings_keep_what_is_not_searched() -> None:
    """Epochs and batch stay those of the base; the rate is the trial's."""
    trial = optuna.trial.FixedTrial({"rate": 0.01, "weight_decay": 0.1, "label_smoothing": 0.1, "warm_up": 0.2})
    settings = suggest_settings(trial, FitSettings(epochs=7, batch=32))
    assert (7, 32, 0.01, 0.1) == (settings.epochs, settings.batch, settings.rate, settings.weight_decay)


def test_an_interrupted_search_goes_on(trainer: Trainer, validation: Bench, tmp_path: Path) -> None:
    """Trials that were finished count in the next run; the one that was interrupted does not; none is done twice."""
    search = ArchitectureSearch(SETTINGS, rows=128, latency_limit_s=1.0, population=4)
    lines: list[str] = []

    def interrupt_at(count: int) -> Callable[[str], None]:
        def log(line: str) -> None:
            lines.append(line)
            if len(lines) == count:
                raise KeyboardInterrupt

        return log

    journal = tmp_path / "journal"
    with pytest.raises(KeyboardInterrupt):
        search.run(4, trainer, validation, journal, silent, interrupt_at(2))
    fractions: list[float] = []
    found = search.run(4, trainer, validation, journal, fractions.append, lines.append)
    assert len(lines) == 4
    assert pytest.approx([0.5, 0.75, 1.0]) == fractions
    assert found == search.run(4, trainer, validation, journal, silent, lines.append)
    assert len(lines) == 4
    assert found
    assert [entry.accuracy for entry in found] == sorted({entry.accuracy for entry in found})


@pytest.mark.parametrize("rung", LADDER, ids=lambda rung: rung.name)
def test_the_ladder_is_in_the_space(rung: Rung) -> None:
    """Every rung of `fashion` is a trial: its parameters give its architecture and how it is trained."""
    parameters = parameters_of(rung.architecture, rung.recipe.fit)
    assert parameters is not None
    trial = optuna.trial.FixedTrial(dict(parameters))
    assert rung.architecture == suggest_architecture(trial)
    assert rung.recipe.fit == suggest_settings(trial, rung.recipe.fit)


def test_what_is_not_in_the_space_has_no_parameters() -> None:
    """A width that is never suggested cannot be a trial."""
    assert parameters_of(Perceptron(hidden=(65,)), SETTINGS) is None


def test_a_search_begins_with_what_is_known_and_returns_what_is_not(
    trainer: Trainer, validation: Bench, tmp_path: Path
) -> None:
    """The known network is the first trial, is tried once however often the search is run, and is never found."""
    known = [Rung("mlp", Perceptron(hidden=(64,)), plainly(1), 1), Rung("odd", Perceptron(hidden=(65,)), plainly(1), 1)]
    search = ArchitectureSearch(SETTINGS, rows=128, latency_limit_s=1.0, population=4)
    lines: list[str] = []
    for trials in (1, 3):
        found = search.run(trials, trainer, validation, tmp_path / "journal", silent, lines.append, known)
    assert 3 == len(lines)
    assert 1 == sum(str(known[0].architecture) in line for line in lines)
    assert str(known[0].architecture) in lines[0]
    assert known[0].architecture not in [entry.architecture for entry in found]


def test_what_is_too_slow_is_not_trained(trainer: Trainer, validation: Bench, tmp_path: Path) -> None:
    """With a limit that nothing meets, every trial is pruned by its measured latency, and nothing is found."""
    lines: list[str] = []
    search = ArchitectureSearch(SETTINGS, rows=128, latency_limit_s=0.0)
    assert [] == search.run(2, trainer, validation, tmp_path / "journal", silent, lines.append)
    assert all("pruned: takes" in line for line in lines)


def test_a_trial_is_compared_with_quicker_ones_of_its_kind_alone() -> None:
    """The best accuracy after the same epoch among finished trials of its kind and of no more latency; 0 for none."""
    kinds = optuna.distributions.CategoricalDistribution(KINDS)
    finished = [
        optuna.trial.create_trial(
            values=[0.5, latency_s],
            params={"kind": kind},
            distributions={"kind": kinds},
            user_attrs={"latency_s": latency_s, "epoch 1": accuracy},
        )
        for kind, latency_s, accuracy in (
            ("residual", 1.0, 0.6),
            ("residual", 2.0, 0.8),
            ("residual", 3.0, 0.9),
            ("perceptron", 0.1, 0.95),
        )
    ]
    assert 0.8 == best_of_quicker(finished, "residual", "epoch 1", 2.5)
    assert 0.0 == best_of_quicker(finished, "residual", "epoch 1", 0.5)
    assert 0.0 == best_of_quicker(finished, "residual", "epoch 2", 2.5)
    assert 0.95 == best_of_quicker(finished, "perceptron", "epoch 1", 2.5)
    assert 0.0 == best_of_quicker(finished, "separable", "epoch 1", 2.5)


def test_training_is_watched_between_epochs(trainer: Trainer) -> None:
    """The watch hears of every epoch but the last, and what it raises ends the training."""
    heard: list[tuple[int, float]] = []
    model = trainer.untrained("x", Perceptron(side=7), 0)
    settings = FitSettings(epochs=3, batch=64)
    watched = WatchedTraining(lambda epoch, accuracy: heard.append((epoch, accuracy)), settings)
    result = watched(model, trainer.data, Run())
    assert [1, 2] == [epoch for epoch, _ in heard]
    assert all(0.0 <= accuracy <= 1.0 for _, accuracy in heard)
    plain = Supervised(settings)(model, trainer.data, Run())
    assert plain.lineage[-1].measures == result.lineage[-1].measures

    def prune(epoch: int, accuracy: float) -> None:
        raise optuna.TrialPruned

    with pytest.raises(optuna.TrialPruned):
        WatchedTraining(prune, settings)(model, trainer.data, Run())


def test_settings_are_searched_for_one_architecture(trainer: Trainer, tmp_path: Path) -> None:
    """The best settings come with the accuracy that they reached, which training them again reaches too."""
    search = HyperparameterSearch(SETTINGS, rows=128)
    architecture = Perceptron(side=7)
    settings, accuracy = search.run(3, architecture, trainer, tmp_path / "journal", silent, silent)
    assert (settings, accuracy) == search.run(3, architecture, trainer, tmp_path / "journal", silent, silent)
    data = first_rows(trainer.data, 128)
    again = Supervised(settings)(trainer.untrained("again", architecture, 0), data, Run(0))
    assert accuracy == again.lineage[-1].measures["validation_accuracy"]


def test_a_study_counts_only_what_came_to_an_end(tmp_path: Path) -> None:
    """A trial left running by a run that died is marked as failed when the study is opened again."""
    sampler = optuna.samplers.RandomSampler(seed=0)
    study = open_study(tmp_path / "journal", "s", ("maximize",), sampler)
    run_until(study, 1, lambda trial: trial.suggest_float("x", 0, 1), silent, silent)
    study.ask()
    again = open_study(tmp_path / "journal", "s", ("maximize",), sampler)
    assert 1 == counted(again)
    assert [TrialState.COMPLETE, TrialState.FAIL] == [trial.state for trial in again.get_trials()]


def test_what_was_found_is_compared_on_rows_that_nobody_saw(
    trainer: Trainer, validation: Bench, tmp_path: Path
) -> None:
    """Ladder and found networks are measured together; both sets together dominate at least what each does."""
    search = ArchitectureSearch(SETTINGS, rows=128, latency_limit_s=1.0, population=2)
    found = search.run(2, trainer, validation, tmp_path / "journal", silent, silent)
    rungs = (Rung("linear", Perceptron(), plainly(1), 1),)
    test = Bench(held_out_quarters(), BRIEF)
    compared = compare(rungs, found, trainer, test, epochs=1, seed=0, advance=silent, log=silent)
    assert {"linear"} == set(compared.ladder)
    assert {f"found-{entry.number}" for entry in found} == set(compared.found)
    ladder, searched, both = compared.hypervolumes()
    assert both >= max(ladder, searched) > 0
    assert len(compared.table().splitlines()) == 1 + len(found)
    assert 150 == len(compared.right["linear"])
    assert compared.ladder["linear"].quality == pytest.approx(compared.right["linear"].mean())
    assert PASSES == len(compared.passes)


def made(name: str, right: NDArray[np.bool_], latency_s: float) -> ParetoPoint:
    return ParetoPoint(name, float(right.mean()), latency_s, 100)


def test_a_rung_is_dominated_by_the_best_that_is_no_slower() -> None:
    """Of two that are better and no slower, the better one is named, with the chance that it is none."""
    random = np.random.default_rng(0)
    rung = random.random(400) < 0.7
    good, best = rung | (random.random(400) < 0.2), rung | (random.random(400) < 0.5)
    slow = np.ones(400, dtype=bool)
    right = {"rung": rung, "top": slow, "good": good, "best": best, "slow": slow}
    compared = Comparison(
        {"rung": made("rung", rung, 2e-4), "top": made("top", slow, 9e-4)},
        {"good": made("good", good, 1e-4), "best": made("best", best, 1.5e-4), "slow": made("slow", slow, 3e-4)},
        right,
        [{"rung": 2e-4, "top": 9e-4, "good": 1e-4, "best": 1.5e-4, "slow": 3e-4}],
    )
    (line,) = compared.dominated()
    assert line.startswith("best dominates rung: +")
    assert line.endswith(" at 0.75 of its latency")
    assert "p = 0.5" not in line


@given(st.integers(0, 2**31), st.integers(2, 6), st.integers(1, 4))
def test_more_points_never_dominate_less(seed: int, networks: int, passes: int) -> None:
    """In every draw both together have at least the ladder's area; intervals hold their median."""
    random = np.random.default_rng(seed)
    names = [str(number) for number in range(networks)]
    right = {name: random.random(50) < random.uniform(0.3, 0.9) for name in names}
    seconds = [{name: float(random.uniform(1e-5, 1e-3)) for name in names} for _ in range(passes)]
    found = spread(right, seconds, {names[0]}, draws=20, seed=seed)
    assert found.gain.low >= -1e-9
    for interval in (found.ladder, found.both, found.gain):
        assert interval.low <= interval.median <= interval.high


def test_the_spread_shrinks_with_the_rows_and_holds_the_plain_value() -> None:
    """A hundred times the rows give a tenth of the interval, around what all rows together say."""
    random = np.random.default_rng(1)
    right = {name: random.random(10_000) < share for name, share in (("hand", 0.7), ("found", 0.8))}
    seconds = [{"hand": 1e-4, "found": 2e-4}]
    few = spread({name: rows[:100] for name, rows in right.items()}, seconds, {"hand"}, draws=200)
    many = spread(right, seconds, {"hand"}, draws=200)
    assert (few.both.high - few.both.low) > 4 * (many.both.high - many.both.low)
    points = [(2e-4, float(right["found"].mean())), (1e-4, float(right["hand"].mean()))]
    assert many.both.low < 1e6 * dominated_area(points, *worst_of(points)) < many.both.high
