"""Fully connected networks on pixels: a linear classifier, and a multilayer perceptron."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import nn

from variants.architectures.image import SIDE, Pixels
from variants.architectures.scale import Scale


@dataclass(frozen=True, slots=True)
class Perceptron:
    """Layers of `hidden` units with ReLU between them; none is a linear classifier. `side` is that of the image."""

    hidden: tuple[int, ...] = ()
    side: int = 14

    def network(self, classes: int) -> nn.Module:
        """Return an untrained network from float32 [n, 28, 28] to logits float32 [n, classes]."""
        layers: list[nn.Module] = [Pixels(self.side), nn.Flatten()]
        inputs = self.side**2
        for units in self.hidden:
            layers += (nn.Linear(inputs, units), nn.ReLU())
            inputs = units
        return nn.Sequential(*layers, nn.Linear(inputs, classes))

    def scaled(self, scale: Scale) -> Perceptron:
        """Return it with more or fewer units, pixels and, where it has a hidden layer, layers."""
        units = tuple(scale.channels(units) for units in self.hidden)
        layers = scale.blocks(len(units)) if units else 0
        return replace(
            self, hidden=(*units, *units[-1:] * (layers - len(units)))[:layers], side=scale.side(self.side, SIDE)
        )
