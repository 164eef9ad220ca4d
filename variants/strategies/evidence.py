"""Both strategies on Fashion-MNIST, several seeds: what they gain, on the test part that nothing else saw.

`python -m variants.strategies.evidence --seeds 3`. Trained networks are kept, so it goes on where it was interrupted.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from variants.families import load_family
from variants.families.fashion.ladder import LADDER
from variants.families.fashion.workbench import open_workbench
from variants.recipes.quantization_aware import QuantizationAware
from variants.sources import cache_folder
from variants.strategies.grow_improve_and_shrink import GrowImproveAndShrink
from variants.strategies.original import Original, Teaching, Workbench
from variants.strategies.report import StrategyReport, table
from variants.strategies.shrink_and_improve import ShrinkAndImprove, recovered
from variants.training.image_augmentation import Shift
from variants.training.settings import FitSettings

TEACHING = Teaching(FitSettings(epochs=30, batch=256, rate=3e-3, weight_decay=0.02), Shift(1), views=6)
"""How perceptrons are taught: images are moved and not mirrored, for their teacher never saw a mirrored one."""


def workbench() -> Workbench:
    """Return where strategies work on the family `fashion`, with the networks that its build keeps."""
    found = open_workbench(load_family("fashion"), cache_folder(), say)
    return Workbench(found.trainer, found.test, log=say)


def original(rung: str) -> Original:
    """Return a rung of the hand-made ladder as the start of a strategy."""
    (chosen,) = (entry for entry in LADDER if entry.name == rung)
    return Original(chosen.architecture, chosen.recipe)


def residual() -> Original:
    """Return the ladder's `residual`, by its own training: one network, so that seeds tell how students differ."""
    return replace(original("residual"), seed=0)


def growing(at: Workbench, seeds: Sequence[int]) -> list[StrategyReport]:
    """Grow the ladder's `mlp-l` into a residual network, which learns more from pixels, and come back."""
    grown = residual()
    strategy = GrowImproveAndShrink(grown.architecture, grown.recipe.fit, TEACHING, grown.seed)
    return [strategy.run(original("mlp-l"), replace(at, seed=seed)) for seed in seeds]


def shrinking(at: Workbench, seeds: Sequence[int]) -> list[StrategyReport]:
    """Shrink `residual` to `mlp-l`, of another kind, so that both strategies share their students."""
    strategy = ShrinkAndImprove(teaching=TEACHING, shrunk=original("mlp-l").architecture)
    return [strategy.run(residual(), replace(at, seed=seed)) for seed in seeds]


def quartering(at: Workbench, seeds: Sequence[int]) -> list[StrategyReport]:
    """Shrink the ladder's largest network, `residual-l`, to its half in width, and that to eight bits."""
    strategy = ShrinkAndImprove(
        teaching=replace(TEACHING, fit=replace(TEACHING.fit, epochs=10), views=2),
        shrunk=original("residual").architecture,
        quantize=QuantizationAware(FitSettings(epochs=0)),
    )
    return [strategy.run(replace(original("residual-l"), seed=0), replace(at, seed=seed)) for seed in seeds]


def quickening(at: Workbench, seeds: Sequence[int]) -> list[StrategyReport]:
    """Shrink `residual-l` to the largest network of its kind that takes a quarter of its time on this machine."""
    large = replace(original("residual-l"), seed=0)
    teaching = replace(TEACHING, fit=replace(TEACHING.fit, epochs=20), views=2)
    # Once, so that all seeds train the same one.
    strategy = ShrinkAndImprove(share=0.25, teaching=teaching).plan(large, at)
    return [strategy.run(large, replace(at, seed=seed)) for seed in seeds]


RUNS: Mapping[str, Callable[[Workbench, Sequence[int]], list[StrategyReport]]] = {
    "growing": growing,
    "shrinking": shrinking,
    "quartering": quartering,
    "quickening": quickening,
}


def summary(reports: Sequence[StrategyReport]) -> str:
    """Return what the seeds have in common, as lines: means, and the least and the most."""
    if "shrunk" not in reports[0].points:
        return "\n".join(
            f"{role} over original, points: {_spread([100 * each.gained(role, over='original') for each in reports])}"
            for role in ("improved", "patient")
        )
    served = [role for role in ("improved", "int8") if role in reports[0].points]
    lines = [
        f"times faster than the original, {role}: {_spread([each.faster(role, than='original') for each in reports])}"
        for role in served
    ]
    for lost in ("shrunk", "pruned"):
        if lost in reports[0].points:
            points = [100 * each.gained("original", over=lost) for each in reports]
            lines.append(f"lost, {lost}, points: {_spread(points)}")
            for role in (*served, "patient"):
                shares = [100 * recovered(each, role, lost) for each in reports]
                lines.append(f"  of that recovered, {role}, %: {_spread(shares)}")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is asked for and print tables and means."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3, help="how often, each with weights of its own")
    parser.add_argument("--only", choices=RUNS, help="one of the runs; default: all")
    given = parser.parse_args(arguments)
    at = workbench()
    for name in [given.only] if given.only else RUNS:
        say(f"{name}:")
        reports = RUNS[name](at, range(given.seeds))
        say(table(reports))
        say(summary(reports))


def _spread(values: Sequence[float]) -> str:
    ends = f" ({min(values):.2f} to {max(values):.2f}, {len(values)} seeds)"
    return f"{statistics.mean(values):.2f}{ends}"


def say(line: str) -> None:
    """Print a line at once: what is told takes hours."""
    print(line, file=sys.stdout, flush=True)  # noqa: T201 - it is a command


if __name__ == "__main__":
    main()
