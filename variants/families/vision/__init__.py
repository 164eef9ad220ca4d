"""`vision`: what is on a picture? EfficientNet-Lite 0, 1 and 2 with ImageNet's 1000 classes, at seven resolutions."""

from __future__ import annotations

from pathlib import Path

from variants.families.vision.network import LITE0, LITE1, LITE2
from variants.families.vision.pictures import photographs
from variants.families.vision.recipe import LadderOfResolutions, Rung
from variants.spec import BuildStage

RUNGS = (
    *(Rung(LITE0, side) for side in (96, 128, 160, 192, 224)),
    Rung(LITE1, 240),
    Rung(LITE2, 260),
)

LABELS = tuple(Path(__file__).with_name("labels.txt").read_text(encoding="utf-8").splitlines())
"""The first name in WordNet of each class, in the order of ImageNet's 1000; namesakes are told apart."""

FAMILY = LadderOfResolutions(RUNGS, photographs).family(
    name="vision",
    description="Pictures of 260x260 pixels, red, green and blue: which of ImageNet's 1000 kinds of things is it?",
    labels=LABELS,
    default_slo_s=0.25,
    source=(
        "networks: EfficientNet-Lite 0, 1 and 2 (Tan and Le, 2019), pretrained on ImageNet-1k; pictures: made from the "
        "stamps and templates of Tux Paint (Debian's tuxpaint-stamps-default and tuxpaint-data), unlabelled"
    ),
    licence="networks: Apache-2.0; pictures: GPL-2+; names of classes: WordNet",
    expected_s={
        BuildStage.DATA: 90.0,
        BuildStage.VARIANTS: 95.0,
        BuildStage.EVALUATE: 200.0,
        BuildStage.PROFILE: 30.0,
        BuildStage.PUBLISH: 3.0,
    },
)
