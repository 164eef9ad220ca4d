"""A search that can be interrupted: its trials are kept in a journal and counted across runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import optuna
from optuna.samplers import BaseSampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, Trial, TrialState

Direction = Literal["minimize", "maximize"]


def open_study(path: Path, name: str, directions: Sequence[Direction], sampler: BaseSampler) -> optuna.Study:
    """Return the study of that name in a journal file, new or with its earlier trials.

    A trial that an interrupt left unfinished is marked as failed, and does not count.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    path.parent.mkdir(parents=True, exist_ok=True)
    study = optuna.create_study(
        storage=JournalStorage(JournalFileBackend(str(path))),
        study_name=name,
        directions=list(directions),
        sampler=sampler,
        load_if_exists=True,
    )
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)
    return study


def counted(study: optuna.Study) -> int:
    """Return how many trials count: those that were finished and those that were pruned."""
    return len(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED)))


def run_until(
    study: optuna.Study,
    trials: int,
    objective: Callable[[Trial], float | Sequence[float]],
    advance: Callable[[float], None],
    log: Callable[[str], None],
) -> None:
    """Run trials until so many count; `advance` is told the fraction, `log` a line for each."""

    def tell(study: optuna.Study, trial: FrozenTrial) -> None:
        log(_line(trial))
        advance(counted(study) / trials)

    advance(min(1.0, counted(study) / trials) if trials else 1.0)
    missing = trials - counted(study)
    if missing > 0:
        study.optimize(objective, n_trials=missing, callbacks=[tell])


def _line(trial: FrozenTrial) -> str:
    about = trial.user_attrs.get("about", "")
    if trial.state is TrialState.COMPLETE:
        values = ", ".join(f"{value:.4g}" for value in trial.values)
        return f"trial {trial.number}: {values}: {about}"
    return f"trial {trial.number}: {trial.state.name.lower()}: {trial.user_attrs.get('why', '')}: {about}"
