"""Both strategies on Fashion-MNIST, several seeds: what they gain, on the test part that nothing else saw.

`python -m variants.strategies.evidence --seeds 3`. Trained networks are kept, so it goes on where it was interrupted.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from variants.architectures.scale import Scale
from variants.families import load_family
from variants.families.fashion.ladder import LADDER, plainly
from variants.families.fashion.workbench import open_workbench
from variants.sources import cache_folder
from variants.strategies.grow_improve_and_shrink import GrowImproveAndShrink
from variants.strategies.original import Original, Teaching, Workbench
from variants.strategies.report import StrategyReport, table
from variants.strategies.shrink_and_improve import ShrinkAndImprove, recovered


def workbench() -> Workbench:
    """Return where strategies work on the family `fashion`, with the networks that its build keeps."""
    found = open_workbench(load_family("fashion"), cache_folder(), _say)
    return Workbench(found.trainer, found.test, log=_say)


def original(rung: str) -> Original:
    """Return a rung of the hand-made ladder as the start of a strategy."""
    (chosen,) = (entry for entry in LADDER if entry.name == rung)
    return Original(chosen.architecture, chosen.recipe)


def teaching(epochs: int) -> Teaching:
    """Return soft labels for so many epochs, with the settings of the ladder."""
    return Teaching(plainly(epochs).fit)


def growing_perceptron(at: Workbench, seeds: Sequence[int]) -> list[StrategyReport]:
    """Grow the ladder's small perceptron into a residual network, and come back."""
    start, middle = original("mlp"), original("residual-m")
    strategy = GrowImproveAndShrink(middle.architecture, middle.recipe.fit, teaching(30))
    return [strategy.run(start, replace(at, seed=seed)) for seed in seeds]


def growing_residual(at: Workbench, seeds: Sequence[int]) -> list[StrategyReport]:
    """Grow the ladder's smallest residual network to twice the width and resolution, and come back."""
    start, larger = original("residual-s"), original("residual")
    strategy = GrowImproveAndShrink(Scale(width=2.0, resolution=2.0), larger.recipe.fit, teaching(15))
    return [strategy.run(start, replace(at, seed=seed)) for seed in seeds]


def shrinking_residual(at: Workbench, seeds: Sequence[int]) -> list[StrategyReport]:
    """Shrink the ladder's largest network to a quarter of its latency; the seeds share one plan."""
    start = original("residual-l")
    plan = ShrinkAndImprove(share=0.25, teaching=teaching(15)).plan(start, at)
    return [plan.run(start, replace(at, seed=seed)) for seed in seeds]


RUNS: Mapping[str, Callable[[Workbench, Sequence[int]], list[StrategyReport]]] = {
    "growing-perceptron": growing_perceptron,
    "shrinking-residual": shrinking_residual,
    "growing-residual": growing_residual,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is asked for and print tables and means."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3, help="how often, each with weights of its own")
    parser.add_argument("--only", choices=RUNS, help="one of the runs; default: all")
    given = parser.parse_args(arguments)
    at = workbench()
    for name in [given.only] if given.only else RUNS:
        _say(f"{name}:")
        reports = RUNS[name](at, range(given.seeds))
        _say(table(reports))
        if "shrunk" in reports[0].points:
            _say(f"times faster than the original: {_spread([r.faster('improved', than='original') for r in reports])}")
            _say(f"lost by shrinking, points: {_spread([100 * r.gained('original', over='shrunk') for r in reports])}")
            _say(f"recovered of that, %: {_spread([100 * recovered(r) for r in reports])}")
        else:
            for role in ("improved", "patient"):
                gains = [100 * r.gained(role, over="original") for r in reports]
                _say(f"{role} over original, points: {_spread(gains)}")


def _spread(values: Sequence[float]) -> str:
    ends = f" ({min(values):.2f} to {max(values):.2f}, {len(values)} seeds)"
    return f"{statistics.mean(values):.2f}{ends}"


def _say(line: str) -> None:
    print(line, file=sys.stdout, flush=True)  # noqa: T201 - it is a command


if __name__ == "__main__":
    main()
