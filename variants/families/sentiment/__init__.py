"""`sentiment`: is a sentence positive or negative? MiniLM, an exit after each of its first four layers: L0 to L4."""

from __future__ import annotations

from variants.families.sentiment.recipe import ExitsOfMiniLM
from variants.families.sentiment.train import Schedule
from variants.spec import BuildStage

EXITS = ExitsOfMiniLM(depth=4, schedule=Schedule(epochs=1, encoder_rate=3e-4), validation=1000, dynamic=True)
"""What strategies on text start from."""

FAMILY = EXITS.family(
    name="sentiment",
    description="Short English review sentences: negative or positive?",
    default_slo_s=0.1,
    expected_s={
        BuildStage.DATA: 3.0,
        BuildStage.TRAIN: 35.0,
        BuildStage.VARIANTS: 9.0,
        BuildStage.COUNTERPARTS: 120.0,
        BuildStage.EVALUATE: 30.0,
        BuildStage.PROFILE: 8.0,
        BuildStage.PUBLISH: 2.0,
    },
)
