"""The shape that all recipes on modules share: a frozen dataclass that takes a model and data and returns a model.

A recipe implements `apply`; calling it does the rest: the given model stays as it is, randomness comes from one seed,
and the step is recorded. `first >> second` is the pipeline that applies one after the other.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import shutil
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from variants.training.keeping import kept_model
from variants.training.model import Model, Setting, Step, count_parameters
from variants.training.peak_memory import peak_memory
from variants.training.rows import TrainingData


def _ignore(_: float) -> None:
    """Nobody asked for progress."""


@dataclass(frozen=True, slots=True)
class Run:
    """How recipes are run: one seed, and where progress (a fraction in [0, 1]) and unfinished epochs go.

    With `checkpoints`, a folder, what was interrupted goes on from its last whole epoch; what is there must come from
    the same code, model and data. A step's files are removed when it is done, those of a pipeline when all steps are.
    """

    seed: int = 0
    progress: Callable[[float], None] = _ignore
    checkpoints: Path | None = None

    def part(self, index: int, count: int) -> Run:
        """Return the run of one of `count` steps: its own seed, share of the progress, and checkpoint folder."""
        folder = None if self.checkpoints is None else self.checkpoints / f"step-{index}"
        return Run(self.seed + index, lambda done: self.progress((index + done) / count), folder)

    def forget(self) -> None:
        """Remove what was written to go on from."""
        if self.checkpoints is not None:
            shutil.rmtree(self.checkpoints, ignore_errors=True)


@dataclass(slots=True)
class Job:
    """One application of a recipe: what `apply` may use, and where it notes what it did.

    `sparse` says that weights which are zero now shall stay zero: an earlier step pruned them. `labelled_rows` and
    `measures` become the step's. `planned_fits` is how often it trains, for its progress.
    """

    data: TrainingData
    run: Run
    example: Mapping[str, torch.Tensor]
    sparse: bool = False
    labelled_rows: int = 0
    measures: dict[str, float] = field(default_factory=dict)
    fits: int = 0
    planned_fits: int = 1

    def progress(self, done: float) -> None:
        """Report the share done of the fit that runs now."""
        self.run.progress(min(1.0, (self.fits - 1 + done) / self.planned_fits))

    def next_checkpoint(self) -> Path | None:
        """Return the file of the next fit within this step, None where nothing is kept."""
        self.fits += 1
        return None if self.run.checkpoints is None else self.run.checkpoints / f"fit-{self.fits}.pt"


class Recipe(ABC):
    """A technique with its settings. Subclasses are frozen dataclasses with a `name` and an `apply`."""

    name: ClassVar[str]

    @abstractmethod
    def apply(self, module: nn.Module, job: Job) -> nn.Module:
        """Return the changed module: `module` itself, which is a copy, or a new one.

        Raises `variants.recipes.artifact.RecipeError` where the technique does not fit the module.
        """

    def __call__(self, model: Model, data: TrainingData, run: Run | None = None) -> Model:
        """Apply the recipe to a copy of the model; the same seed on the same machine gives the same weights."""
        run = run or Run()
        _load_optimizers()
        sparse = any(step.measures.get("sparsity", 0.0) > 0.0 for step in model.lineage)
        job = Job(data, run, model.example, sparse=sparse)
        start = time.perf_counter()
        with torch.random.fork_rng(devices=[]), peak_memory() as memory:
            torch.manual_seed(run.seed)
            module = self.apply(copy.deepcopy(model.module), job).eval()
        module.zero_grad(set_to_none=True)
        step = Step(
            recipe=self.name,
            settings=dict(_settings(self)),
            seed=run.seed,
            seconds=time.perf_counter() - start,
            labelled_rows=job.labelled_rows,
            peak_rss_bytes=memory.rss_bytes,
            parameters=count_parameters(module),
            measures=job.measures,
            text=self.describe(),
        )
        run.forget()
        run.progress(1.0)
        return model.next(module, step)

    def __rshift__(self, then: Recipe | Pipeline) -> Pipeline:
        return Pipeline((self,)) >> then

    def describe(self) -> str:
        """Return the step in a few words: the name, and the settings that are not the default."""
        changed = [f"{name} {value}" for name, value in _settings(self, changed_only=True)]
        return f"{self.name} ({', '.join(changed)})" if changed else self.name


@dataclass(frozen=True, slots=True)
class Pipeline:
    """Recipes one after another; each is a step of the lineage, with a seed of its own."""

    recipes: tuple[Recipe, ...]

    def __call__(self, model: Model, data: TrainingData, run: Run | None = None) -> Model:
        """Apply all recipes in turn."""
        run = run or Run()
        for index, recipe in enumerate(self.recipes):
            apply = functools.partial(recipe, model, data, run.part(index, len(self.recipes)))
            if run.checkpoints is None:
                model = apply()
            else:
                key = f"{recipe!r} after {model.history}, seed {run.seed}, {len(data.train)} rows"
                model = kept_model(run.checkpoints / f"model-{index}.pt", key, apply)
        run.forget()
        return model

    def __rshift__(self, then: Recipe | Pipeline) -> Pipeline:
        return Pipeline((*self.recipes, *(then.recipes if isinstance(then, Pipeline) else (then,))))


@functools.cache
def _load_optimizers() -> None:
    """Make an optimizer once: with its first, torch loads its compiler, seconds that no step should be charged."""
    torch.optim.SGD([torch.zeros(1, requires_grad=True)])


def _settings(value: Any, prefix: str = "", *, changed_only: bool = False) -> Iterator[tuple[str, Setting]]:
    """Yield the fields of a dataclass by name, those of dataclasses within it with a dot."""
    for entry in dataclasses.fields(value):
        setting = getattr(value, entry.name)
        default = entry.default_factory() if callable(entry.default_factory) else entry.default
        if changed_only and setting == default:
            continue
        if isinstance(setting, Model):
            yield f"{prefix}{entry.name}", setting.name
        elif dataclasses.is_dataclass(setting):
            yield from _settings(setting, f"{prefix}{entry.name}.", changed_only=changed_only)
        elif isinstance(setting, (str, float, int, bool)) or setting is None:
            yield f"{prefix}{entry.name}", setting
        else:
            yield f"{prefix}{entry.name}", str(setting)
