"""The hand-made ladder: networks of five kinds, from a linear classifier to a residual network, with their training.

The sizes of one kind are one architecture grown and shrunk by `variants.architectures.scale`.
"""

from __future__ import annotations

from variants.architectures.perceptron import Perceptron
from variants.architectures.residual import ResidualNet
from variants.architectures.rung import Rung
from variants.architectures.scale import Scale
from variants.architectures.separable import SeparableNet
from variants.architectures.vision_transformer import VisionTransformer
from variants.recipes.supervised import Supervised
from variants.training.settings import FitSettings


def plainly(epochs: int, rate: float = 4e-3) -> Supervised:
    """Return the training that every rung gets: labels alone, and no more than a network of its size needs."""
    return Supervised(FitSettings(epochs=epochs, batch=128, rate=rate, weight_decay=0.02))


LADDER = (
    Rung("linear", Perceptron(), plainly(5), 4),
    Rung("mlp", Perceptron(hidden=(64,)), plainly(10), 9),
    Rung("mlp-l", Perceptron(hidden=(256,), side=28), plainly(6, rate=2e-3), 10, int8=True),
    Rung("separable-s", SeparableNet(blocks=(1, 1, 1)).scaled(Scale(width=2 / 3)), plainly(5), 43),
    Rung("separable", SeparableNet(), plainly(5), 88, int8=True),
    Rung("residual-s", ResidualNet().scaled(Scale(width=0.5, resolution=0.5)), plainly(6), 30),
    Rung("residual-m", ResidualNet().scaled(Scale(resolution=0.5)), plainly(6), 50, int8=True),
    Rung("residual", ResidualNet(), plainly(5), 95, int8=True),
    Rung("residual-l", ResidualNet().scaled(Scale(width=2.0)), plainly(4), 240, int8=True),
    Rung("vit", VisionTransformer(patch=7), plainly(5, rate=2e-3), 90, int8=True),
)
