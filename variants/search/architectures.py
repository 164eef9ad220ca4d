"""Searching architectures for two aims at once: validation accuracy up, measured latency down.

NSGA-II: Deb et al., "A Fast and Elitist Multiobjective Genetic Algorithm", IEEE TEC 2002, in Optuna (Akiba et al., KDD
2019). Latency is measured in the session that serves, before a trial is trained: what is too slow costs no training.
Optuna's pruners know one aim only, so a rule of our own ends trials: after an epoch, if a quicker one of the same kind
that was finished had been much better by then.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import optuna
from optuna.trial import FrozenTrial, Trial, TrialState

from variants.architectures.image import ImageArchitecture
from variants.architectures.rung import Rung
from variants.architectures.trained import Trainer
from variants.search.space import parameters_of, suggest_architecture, suggest_settings
from variants.search.study import open_study, run_until
from variants.search.watched import WatchedTraining
from variants.strategies.bench import Bench
from variants.training.model import Model
from variants.training.recipe import Run
from variants.training.rows import TrainingData
from variants.training.settings import FitSettings

HOPELESS = 0.05
"""A trial this much less accurate after an epoch than a quicker one of its kind was after the same epoch is ended."""


@dataclass(frozen=True, slots=True)
class Found:
    """A network on the frontier of the search: what it is, how it was trained, and what validation said."""

    number: int
    architecture: ImageArchitecture
    settings: FitSettings
    accuracy: float
    latency_s: float


@dataclass(frozen=True, slots=True)
class ArchitectureSearch:
    """Trials of `settings` (short) on the first `rows` training rows; none slower than `latency_limit_s` is trained."""

    settings: FitSettings = field(default_factory=lambda: FitSettings(epochs=3, batch=128))
    rows: int = 12_000
    latency_limit_s: float = 1e-3
    population: int = 12
    seed: int = 0

    def run(
        self,
        trials: int,
        trainer: Trainer,
        bench: Bench,
        journal: Path,
        advance: Callable[[float], None],
        log: Callable[[str], None],
        known: Sequence[Rung] = (),
    ) -> list[Found]:
        """Search until `trials` count, earlier runs' among them; return the frontier, quickest first.

        The first trials are those of the `known` networks that the space holds. What comes after descends from them,
        and has to be better: they are on no frontier that is returned.
        """
        sampler = optuna.samplers.NSGAIISampler(population_size=self.population, seed=self.seed)
        study = open_study(journal, f"architectures {self} {trainer.digest[:12]}", ("maximize", "minimize"), sampler)
        given = [parameters_of(rung.architecture, rung.recipe.fit) for rung in known]
        for parameters in given:
            if parameters is not None:
                study.enqueue_trial(dict(parameters), skip_if_exists=True)
        data = first_rows(trainer.data, self.rows)
        run_until(study, trials, lambda trial: self._try(trial, trainer, data, bench), advance, log)
        new = [trial for trial in study.best_trials if trial.params not in given]
        return sorted(map(self._found, new), key=lambda found: found.latency_s)

    def _try(self, trial: Trial, trainer: Trainer, data: TrainingData, bench: Bench) -> tuple[float, float]:
        architecture = suggest_architecture(trial)
        settings = suggest_settings(trial, self.settings)
        trial.set_user_attr("about", str(architecture))
        model = trainer.untrained(f"trial-{trial.number}", architecture, self.seed)
        latency_s = bench.costs({model.name: model})[model.name].latency_s
        trial.set_user_attr("latency_s", latency_s)
        if latency_s > self.latency_limit_s:
            _prune(trial, f"takes {1e3 * latency_s:.3g} ms")
        trained = self._train(trial, model, settings, data, latency_s)
        return trained.lineage[-1].measures["validation_accuracy"], latency_s

    def _train(self, trial: Trial, model: Model, settings: FitSettings, data: TrainingData, latency_s: float) -> Model:
        finished = trial.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))

        def watch(epochs: int, accuracy: float) -> None:
            trial.set_user_attr(f"epoch {epochs}", accuracy)
            best = best_of_quicker(finished, trial.params["kind"], f"epoch {epochs}", latency_s)
            if accuracy < best - HOPELESS:
                _prune(trial, f"{accuracy:.3f} after {epochs} epochs, a quicker one had {best:.3f}")

        return WatchedTraining(watch, settings)(model, data, Run(self.seed))

    def _found(self, trial: FrozenTrial) -> Found:
        return Found(
            trial.number,
            suggest_architecture(optuna.trial.FixedTrial(trial.params)),
            suggest_settings(optuna.trial.FixedTrial(trial.params), self.settings),
            accuracy=trial.values[0],
            latency_s=trial.values[1],
        )


def best_of_quicker(finished: list[FrozenTrial], kind: str, epoch: str, latency_s: float) -> float:
    """Return the best accuracy that a finished trial of a kind and of no more latency had after an epoch; 0 if none.

    Kinds are kept apart, for perceptrons learn most in their first epoch and separable networks least.
    """
    return max(
        (
            trial.user_attrs.get(epoch, 0.0)
            for trial in finished
            if trial.params["kind"] == kind and trial.user_attrs["latency_s"] <= latency_s
        ),
        default=0.0,
    )


def first_rows(data: TrainingData, rows: int) -> TrainingData:
    """Return the data with the first rows of the training part; validation stays whole."""
    return TrainingData(data.train.take(slice(0, rows)), data.validation)


def _prune(trial: Trial, why: str) -> None:
    trial.set_user_attr("why", why)
    raise optuna.TrialPruned(why)
