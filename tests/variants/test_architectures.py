from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from variants.architectures.image import SIDE, ImageArchitecture, Pixels
from variants.architectures.perceptron import Perceptron
from variants.architectures.residual import ResidualNet
from variants.architectures.scale import Scale, compound
from variants.architectures.separable import SeparableNet
from variants.architectures.vision_transformer import VisionTransformer
from variants.preparation import LOGITS
from variants.recipes.export import export
from variants.session import open_session

ARCHITECTURES: tuple[ImageArchitecture, ...] = (
    Perceptron(),
    Perceptron(hidden=(32,)),
    SeparableNet(widths=(8, 16), blocks=(1, 2)),
    ResidualNet(widths=(8, 16), blocks=(1, 2), side=14),
    VisionTransformer(width=32, depth=2, patch=7),
)


def parameters(architecture: ImageArchitecture) -> int:
    return sum(weights.numel() for weights in architecture.network(10).parameters())


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=repr)
def test_every_architecture_answers_and_exports(architecture: ImageArchitecture, tmp_path: Path) -> None:
    """Images become logits, and the exported graph gives those of torch for a batch of any length."""
    network = architecture.network(7).eval()
    export(network, {"image": torch.zeros(2, SIDE, SIDE)}, tmp_path / "model.onnx", lineage=())
    images = np.random.default_rng(0).normal(size=(5, SIDE, SIDE)).astype(np.float32)
    with torch.inference_mode():
        expected = network(torch.from_numpy(images)).numpy()
    assert (5, 7) == expected.shape
    np.testing.assert_allclose(
        open_session(tmp_path / "model.onnx").run({"image": images})[LOGITS], expected, atol=1e-4
    )


@pytest.mark.parametrize("architecture", ARCHITECTURES[1:], ids=repr)
@pytest.mark.parametrize("scale", [Scale(width=2.0), compound(3.0, fixed_resolution=True)], ids=["wider", "compound"])
def test_growing_adds_weights_and_shrinking_takes_them(architecture: ImageArchitecture, scale: Scale) -> None:
    """A larger scale gives more parameters, its inverse fewer, and scale 1 the same description."""
    inverse = Scale(1 / scale.width, 1 / scale.depth, 1 / scale.resolution)
    assert parameters(architecture.scaled(inverse)) < parameters(architecture) < parameters(architecture.scaled(scale))
    assert architecture == architecture.scaled(Scale())


def test_depth_adds_blocks_where_there_is_something_to_deepen() -> None:
    """Depth alone leaves widths as they are; a linear classifier has no layers to multiply."""
    assert ResidualNet(widths=(8, 16), blocks=(2, 3)) == ResidualNet((8, 16), (1, 2)).scaled(Scale(depth=1.5))
    assert Perceptron(hidden=(64, 64)) == Perceptron(hidden=(64,)).scaled(Scale(depth=2))
    assert Perceptron() == Perceptron().scaled(Scale(depth=3, width=2))


@given(st.integers(1, 512), st.floats(0.05, 8.0), st.sampled_from([1, 4, 8, 16]))
def test_channels_stay_near_the_exact_product(count: int, width: float, divisor: int) -> None:
    """They are multiples of the divisor, at least it, no more than a tenth below the product and a divisor above."""
    channels = Scale(width=width).channels(count, divisor)
    assert channels % divisor == 0
    assert channels >= divisor
    assert 0.9 * count * width <= channels <= max(divisor, count * width + divisor)


@given(st.integers(1, 8), st.floats(0.05, 4.0))
def test_a_stage_keeps_a_block(count: int, depth: float) -> None:
    """Blocks are rounded up from the exact product."""
    blocks = Scale(depth=depth).blocks(count)
    assert max(1.0, count * depth) <= blocks + 1e-6
    assert blocks < count * depth + 1


@given(st.sampled_from([28, 14, 7]), st.floats(0.1, 4.0))
def test_the_image_side_divides_the_whole(pixels: int, resolution: float) -> None:
    """Whatever the resolution, squares of whole pixels are averaged."""
    assert SIDE % Scale(resolution=resolution).side(pixels, SIDE) == 0


def test_a_compound_step_doubles_the_arithmetic() -> None:
    """One step in phi takes about twice the multiplications, with and without a share for resolution."""
    assert math.isclose(2.0, compound(1.0).arithmetic, rel_tol=0.05)
    assert math.isclose(compound(1.0).arithmetic, compound(1.0, fixed_resolution=True).arithmetic)
    assert math.isclose(1.0, (compound(-2.0).arithmetic * compound(2.0).arithmetic))


def test_what_cannot_be_built_is_refused() -> None:
    """Factors of nothing, sides that do not divide the image, and widths that no head divides are value errors."""
    with pytest.raises(ValueError, match="above 0"):
        Scale(width=0.0)
    with pytest.raises(ValueError, match="does not divide"):
        Pixels(9)
    with pytest.raises(ValueError, match="multiple of 16"):
        VisionTransformer(width=24).network(10)
