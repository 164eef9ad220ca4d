"""Both strategies on sentences, several seeds: what one of MiniLM's layers learns from all of a family's.

`python -m variants.strategies.sentences --seeds 2`. Trained networks are kept, so it goes on where it was interrupted.

- **Shrink and improve**: all layers, four of `sentiment` or six of `sentiment-deep`, are good enough and too slow.
  Shrunk: fewer layers, trained in the family's way. Improved: they learn from all, for longer, on sentences with hidden
  words.
- **Grow, improve and shrink**: the few layers are quick enough and too bad. All layers are the grown network; the
  improved network is the same as above.

In both, a control ("patient") learns for as long from as many changed sentences, by labels alone.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from variants.families import sentiment
from variants.families.sentiment import deep
from variants.families.sentiment.workbench import SentenceWorkbench, open_sentences
from variants.recipes.consistent_distillation import ConsistentDistillation
from variants.recipes.supervised import Supervised
from variants.sources import cache_folder
from variants.strategies.evidence import say, summary
from variants.strategies.report import StrategyReport, table
from variants.training.settings import FitSettings
from variants.training.text_augmentation import TokenDropout

SETTINGS = FitSettings(epochs=6, batch=64, rate=4e-4, weight_decay=0.01)
VIEWS = 3
TEMPERATURE, ALPHA = 2.0, 0.7
HIDDEN_SHARE = 0.1
TEACHER_SEED = 0
FAMILIES = {"sentiment": (sentiment.EXITS, sentiment.FAMILY), "sentiment-deep": (deep.EXITS, deep.FAMILY)}


def reports(at: SentenceWorkbench, depth: int, seed: int, settings: FitSettings) -> list[StrategyReport]:
    """Return both strategies' reports; the networks of one seed are measured in turns, once for both."""
    large = at.fine_tuned(at.exits.depth, TEACHER_SEED, joint=True)
    hidden = TokenDropout(at.mask_id, HIDDEN_SHARE)
    teaching = ConsistentDistillation(large, VIEWS, hidden, TEMPERATURE, ALPHA, settings)
    alone = Supervised(replace(settings, augmentation=hidden))
    models = {
        "large": large,
        "small": at.fine_tuned(depth, seed),
        "improved": at.taught(depth, seed, teaching, f"teacher of {at.exits}, seed {TEACHER_SEED}"),
        "patient": at.taught(depth, seed, alone, ""),
    }
    points = at.test.points(models)
    learn = f"learn from all layers for {settings.epochs} epochs"
    roles = {role: points[role] for role in ("improved", "patient")}
    return [
        StrategyReport(
            "shrink and improve",
            (f"shrink to {depth} of {at.exits.depth} layers", f"improve: {learn}"),
            {"original": points["large"], "shrunk": points["small"], **roles},
            ("original", "shrunk"),
        ),
        StrategyReport(
            "grow, improve and shrink",
            (f"grow {depth} layers to {at.exits.depth}", f"shrink: {learn}"),
            {"original": points["small"], "grown": points["large"], **roles},
            ("original",),
        ),
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run both and print tables and means."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=2, help="how often, each with weights of its own")
    parser.add_argument("--family", choices=FAMILIES, default="sentiment", help="whose layers, all of them, teach")
    parser.add_argument("--layers", type=int, default=1, help="how many the small network has")
    parser.add_argument("--epochs", type=int, default=SETTINGS.epochs, help="how long the small network is taught")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="pareto-sentences-") as folder:
        at = open_sentences(*FAMILIES[given.family], cache_folder(), Path(folder), say)
        settings = replace(SETTINGS, epochs=given.epochs)
        runs = []
        for seed in range(given.seeds):
            runs.append(reports(at, given.layers, seed, settings))
            say(f"seed {seed}:\n{table(runs[-1])}")
    for found in zip(*runs, strict=True):
        say(f"{found[0].strategy}:\n{summary(found)}")


if __name__ == "__main__":
    main()
