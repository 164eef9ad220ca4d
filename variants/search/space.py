"""What is searched: architectures of four kinds and sizes, and the settings that they are trained with.

A trial is what Optuna calls one choice; the same parameters always give the same architecture and settings.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import replace

from optuna.trial import BaseTrial, FixedTrial

from variants.architectures.image import SIDE, ImageArchitecture
from variants.architectures.perceptron import Perceptron
from variants.architectures.residual import ResidualNet
from variants.architectures.separable import SeparableNet
from variants.architectures.vision_transformer import HEAD_WIDTH, VisionTransformer
from variants.training.settings import FitSettings

KINDS = ("perceptron", "separable", "residual", "attention")
WIDTHS = (8, 12, 16, 24, 32)
STAGES = (1, 2, 3)
BLOCKS = (1, 2)
SIDES = (SIDE // 2, SIDE)

Parameters = Mapping[str, float | str]
"""What a trial is made of, by name."""


def suggest_architecture(trial: BaseTrial) -> ImageArchitecture:
    """Return an architecture: a kind, and its width, stages, blocks of a stage and side of the image.

    All kinds share the same parameters, each reading them in its own way: so parents of two kinds can have children.
    """
    kind = trial.suggest_categorical("kind", KINDS)
    width = trial.suggest_categorical("width", WIDTHS)
    stages = trial.suggest_int("stages", STAGES[0], STAGES[-1])
    blocks = trial.suggest_int("blocks", BLOCKS[0], BLOCKS[-1])
    side = trial.suggest_categorical("side", SIDES)
    if kind == "perceptron":
        return Perceptron((8 * width,) * (stages - 1), side)
    if kind == "attention":
        return VisionTransformer(-(-2 * width // HEAD_WIDTH) * HEAD_WIDTH, stages, patch=7, side=side)
    widths = tuple(width * 2**stage for stage in range(stages))
    shape = (1, *(blocks,) * (stages - 1))
    return SeparableNet(widths, shape, side) if kind == "separable" else ResidualNet(widths, shape, side)


def suggest_settings(trial: BaseTrial, base: FitSettings) -> FitSettings:
    """Return settings of training like `base` but for what is searched: rate, decay, smoothing and schedule."""
    return replace(
        base,
        rate=trial.suggest_float("rate", 5e-4, 2e-2, log=True),
        weight_decay=trial.suggest_float("weight_decay", 1e-3, 0.2, log=True),
        label_smoothing=trial.suggest_float("label_smoothing", 0.0, 0.15),
        warm_up=trial.suggest_float("warm_up", 0.05, 0.4),
    )


def parameters_of(architecture: ImageArchitecture, settings: FitSettings) -> Parameters | None:
    """Return what a trial must be made of to give this architecture and these settings; None where none can."""
    for kind, width, stages, blocks, side in itertools.product(KINDS, WIDTHS, STAGES, BLOCKS, SIDES):
        chosen: dict[str, float | str] = {
            "kind": kind,
            "width": width,
            "stages": stages,
            "blocks": blocks,
            "side": side,
        }
        if suggest_architecture(FixedTrial(chosen)) == architecture:
            return chosen | {
                name: getattr(settings, name) for name in ("rate", "weight_decay", "label_smoothing", "warm_up")
            }
    return None
