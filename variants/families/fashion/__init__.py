"""`fashion`: what kind of clothes is on a picture of 28x28 pixels? Ten small networks of five kinds, from scratch."""

from __future__ import annotations

from variants.families.fashion.data import LABELS, fashion_mnist
from variants.families.fashion.ladder import LADDER
from variants.families.fashion.recipe import LadderOfImages
from variants.spec import BuildStage

IMAGES = LadderOfImages(LADDER, fashion_mnist)
"""What `pareto search` starts from and compares with."""

FAMILY = IMAGES.family(
    name="fashion",
    description="Pictures of clothes, 28x28 grey values: which of ten kinds is it?",
    labels=LABELS,
    default_slo_s=0.02,
    source="Fashion-MNIST: Xiao, Rasul and Vollgraf, 2017 (Debian's dataset-fashion-mnist)",
    licence="data: MIT (Zalando SE); weights: made by this build",
    expected_s={
        BuildStage.DATA: 3.0,
        BuildStage.TRAIN: 650.0,
        BuildStage.VARIANTS: 6.0,
        BuildStage.EVALUATE: 30.0,
        BuildStage.PROFILE: 6.0,
        BuildStage.PUBLISH: 1.0,
    },
)
