"""Where strategies and searches work on a family of images: its data, its kept networks, and a bench for each part."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from variants.architectures.trained import Trainer
from variants.families.fashion.data import INPUT
from variants.families.fashion.recipe import prepared, training_data
from variants.spec import BuildContext, FamilySpec
from variants.strategies.bench import Bench


@dataclass(frozen=True, slots=True, eq=False)
class ImageWorkbench:
    """`validation` is what choices are made by, `test` what is measured when all is chosen, once."""

    trainer: Trainer
    validation: Bench
    test: Bench


def weights_folder(cache: Path, family: str) -> Path:
    """Return where the trained networks of a family are kept."""
    return cache / "weights" / family


def open_workbench(family: FamilySpec, cache: Path, log: Callable[[str], None]) -> ImageWorkbench:
    """Load the family's data; networks that its build trained are found again. Raises `BuildError` as `load` does."""
    with tempfile.TemporaryDirectory(prefix="pareto-search-") as folder:
        context = BuildContext(family, Path(folder), Path(folder), cache, lambda _: None, log)
        dataset = family.load(context)
        preparer = context.preparer()
    data = training_data(dataset, preparer)
    trainer = Trainer.of(data, len(family.labels), INPUT, weights_folder(cache, family.name))
    return ImageWorkbench(trainer, Bench(data.validation), Bench(prepared(dataset.test, preparer)))
