"""Attention over patches of the image: Dosovitskiy et al., "An Image is Worth 16x16 Words", ICLR 2021.

Pre-norm layers, and the mean over the patches in place of a class token, after Beyer et al., "Better plain ViT
baselines", 2022.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from variants.architectures.image import SIDE, Pixels
from variants.architectures.scale import Scale

HEAD_WIDTH = 16


class EncoderLayer(nn.Module):
    """Self-attention and a feed-forward net, each behind a LayerNorm and with a residual around it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = width // HEAD_WIDTH
        self.attention_norm = nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.projection = nn.Linear(width, width)
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.ReLU(), nn.Linear(2 * width, width)
        )

    def forward(self, hidden: Tensor) -> Tensor:
        """Map float32 [n, t, width] to the same shape."""
        rows, tokens, width = hidden.shape
        parts = self.query_key_value(self.attention_norm(hidden)).view(rows, tokens, 3, self.heads, HEAD_WIDTH)
        query, key, value = (parts[:, :, part].transpose(1, 2) for part in range(3))
        scores = query @ key.transpose(2, 3) * HEAD_WIDTH**-0.5
        mixed = (scores.softmax(dim=3) @ value).transpose(1, 2).reshape(rows, tokens, width)
        hidden = hidden + self.projection(mixed)
        answer: Tensor = hidden + self.feed_forward(hidden)
        return answer


class _Encoder(nn.Module):
    def __init__(self, width: int, depth: int, patch: int, side: int, classes: int) -> None:
        super().__init__()
        self.pixels = Pixels(side)
        self.patches = nn.Conv2d(1, width, patch, patch)
        self.positions = nn.Parameter(torch.randn((side // patch) ** 2, width) * 0.02)
        self.layers = nn.Sequential(*(EncoderLayer(width) for _ in range(depth)))
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, classes))

    def forward(self, images: Tensor) -> Tensor:
        """Map float32 [n, 28, 28] to logits [n, classes]."""
        patches = self.patches(self.pixels(images)).flatten(2).transpose(1, 2)
        logits: Tensor = self.head(self.layers(patches + self.positions).mean(dim=1))
        return logits


@dataclass(frozen=True, slots=True)
class VisionTransformer:
    """`depth` layers, `width` wide (a multiple of 16), over squares of `patch` pixels of an image `side` wide."""

    width: int = 64
    depth: int = 3
    patch: int = 4
    side: int = SIDE

    def network(self, classes: int) -> nn.Module:
        """Return an untrained network from float32 [n, 28, 28] to logits float32 [n, classes]."""
        if self.width % HEAD_WIDTH or self.side % self.patch:
            raise ValueError(f"{self}: width must be a multiple of {HEAD_WIDTH}, and patch must divide side")
        return _Encoder(self.width, self.depth, self.patch, self.side, classes)

    def scaled(self, scale: Scale) -> VisionTransformer:
        """Return it wider or narrower, deeper or shallower, over more or fewer pixels."""
        side = scale.side(self.side, SIDE)
        return replace(
            self,
            width=scale.channels(self.width, HEAD_WIDTH),
            depth=scale.blocks(self.depth),
            side=side if side % self.patch == 0 else self.side,
        )
