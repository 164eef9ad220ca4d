"""Both strategies on Fashion-MNIST, several seeds: what they gain, on the test part that nothing else saw.

`python -m variants.strategies.evidence --seeds 3`. Trained networks are kept, so it goes on where it was interrupted.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from variants.architectures.residual import ResidualNet
from variants.architectures.scale import Scale
from variants.architectures.trained import Trainer
from variants.families import load_family
from variants.families.fashion.data import INPUT
from variants.families.fashion.ladder import LADDER
from variants.families.fashion.recipe import prepared, training_data
from variants.sources import cache_folder
from variants.spec import BuildContext
from variants.strategies.bench import Bench
from variants.strategies.grow_improve_and_shrink import GrowImproveAndShrink
from variants.strategies.original import Original, Workplace
from variants.strategies.report import StrategyReport, table
from variants.strategies.shrink_and_improve import ShrinkAndImprove, recovered


def workplace() -> Workplace:
    """Return where strategies work on the family `fashion`, with the networks that its build keeps."""
    family = load_family("fashion")
    with tempfile.TemporaryDirectory() as folder:
        context = BuildContext(family, Path(folder), Path(folder), cache_folder(), lambda _: None, _say)
        data = family.load(context)
        preparer = context.preparer()
        trainer = Trainer.of(
            training_data(data, preparer), len(family.labels), INPUT, context.cache / "weights" / family.name
        )
        return Workplace(trainer, Bench(prepared(data.test, preparer)), log=_say)


def original(rung: str) -> Original:
    """Return a rung of the hand-made ladder as the start of a strategy."""
    (chosen,) = (entry for entry in LADDER if entry.name == rung)
    return Original(chosen.architecture, chosen.recipe)


def shrinking(seeds: int, at: Workplace) -> list[StrategyReport]:
    """Shrink the ladder's largest network to a quarter of its latency; the seeds share one plan."""
    start = original("residual-l")
    plan = ShrinkAndImprove(share=0.25).plan(start, at)
    return [plan.run(start, replace(at, seed=seed)) for seed in range(seeds)]


def growing(seeds: int, at: Workplace) -> list[StrategyReport]:
    """Grow the smallest residual network to the shape and the training of the largest, and come back."""
    start, largest = original("residual-s"), original("residual-l")
    strategy = GrowImproveAndShrink(grow=Scale(width=4.0, resolution=2.0), improve=largest.recipe.fit)
    assert isinstance(start.architecture, ResidualNet)
    return [strategy.run(start, replace(at, seed=seed)) for seed in range(seeds)]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is asked for and print tables and means."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3, help="how often, each with weights of its own")
    parser.add_argument("--only", choices=("shrinking", "growing"), help="one of the two")
    given = parser.parse_args(arguments)
    at = workplace()
    if given.only != "shrinking":
        reports = growing(given.seeds, at)
        _say(table(reports))
        for role in ("improved", "patient"):
            _say(f"{role} over original, points: {_spread([100 * r.gained(role, over='original') for r in reports])}")
    if given.only != "growing":
        reports = shrinking(given.seeds, at)
        _say(table(reports))
        _say(f"times faster than the original: {_spread([r.faster('improved', than='original') for r in reports])}")
        _say(f"recovered of what shrinking lost, %: {_spread([100 * recovered(r) for r in reports])}")


def _spread(values: Sequence[float]) -> str:
    ends = f" ({min(values):.2f} to {max(values):.2f}, {len(values)} seeds)"
    return f"{statistics.mean(values):.2f}{ends}"


def _say(line: str) -> None:
    print(line, file=sys.stdout, flush=True)  # noqa: T201 - it is a command


if __name__ == "__main__":
    main()
