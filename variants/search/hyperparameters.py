"""Searching how to train one architecture: validation accuracy after a short training on part of the rows.

The tree-structured Parzen estimator of Bergstra et al., NeurIPS 2011, with trials pruned that are below the median of
the others after the same epoch (Golovin et al., "Google Vizier", KDD 2017), both as Optuna has them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import optuna
from optuna.trial import FixedTrial, Trial

from variants.architectures.image import ImageArchitecture
from variants.architectures.trained import Trainer
from variants.search.architectures import first_rows
from variants.search.space import suggest_settings
from variants.search.study import open_study, run_until
from variants.search.watched import WatchedTraining
from variants.training.recipe import Run
from variants.training.settings import FitSettings


@dataclass(frozen=True, slots=True)
class HyperparameterSearch:
    """Trials of `settings` on the first `rows` training rows."""

    settings: FitSettings = field(default_factory=lambda: FitSettings(epochs=4, batch=128))
    rows: int = 12_000
    seed: int = 0

    def run(
        self,
        trials: int,
        architecture: ImageArchitecture,
        trainer: Trainer,
        journal: Path,
        advance: Callable[[float], None],
        log: Callable[[str], None],
    ) -> tuple[FitSettings, float]:
        """Search until `trials` (at least 1) count; return the best settings and their validation accuracy.

        Raises `ValueError` where no trial was finished.
        """
        study = open_study(
            journal,
            f"training {architecture} {self} {trainer.digest[:12]}",
            ("maximize",),
            optuna.samplers.TPESampler(seed=self.seed),
        )
        study.pruner = optuna.pruners.MedianPruner(n_startup_trials=4)
        data = first_rows(trainer.data, self.rows)

        def objective(trial: Trial) -> float:
            def watch(epochs: int, accuracy: float) -> None:
                trial.report(accuracy, epochs)
                if trial.should_prune():
                    trial.set_user_attr("why", f"{accuracy:.3f} after {epochs} epochs, below the median")
                    raise optuna.TrialPruned

            settings = suggest_settings(trial, self.settings)
            trial.set_user_attr("about", f"rate {settings.rate:.2g}, decay {settings.weight_decay:.2g}")
            model = trainer.untrained(f"trial-{trial.number}", architecture, self.seed)
            trained = WatchedTraining(watch, settings)(model, data, Run(self.seed))
            return trained.lineage[-1].measures["validation_accuracy"]

        run_until(study, trials, objective, advance, log)
        return suggest_settings(FixedTrial(study.best_params), self.settings), study.best_value
