"""A family that exists on paper only: a quick variant and a slow one, and what each answers on four samples."""

from __future__ import annotations

import numpy as np

from loadtests.samples import Samples
from router.contract import Family, VariantProfile
from router.latency import table

FAMILY = Family(
    "scripted",
    (
        VariantProfile("small", 0.75, table((1, 8), (0.001, 0.006), (0.002, 0.012))),
        VariantProfile("large", 1.00, table((1, 8), (0.008, 0.060), (0.016, 0.120))),
    ),
    sizes=(16, 64),
    max_batch=8,
)
SAMPLES = Samples(
    family="scripted",
    labels=("negative", "positive"),
    inputs={},
    datatypes={},
    label=np.array([0, 1, 0, 1]),
    size_class=np.array([0, 0, 1, 1]),
    predicted={"small": np.array([0, 1, 0, 0]), "large": np.array([0, 1, 0, 1])},
    confidence={
        "small": np.array([0.9, 0.8, 0.6, 0.55], np.float32),
        "large": np.array([0.95, 0.95, 0.9, 0.9], np.float32),
    },
)
