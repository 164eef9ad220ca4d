"""`sentiment-deep`: the task of `sentiment` with the whole encoder, trained for longer: six layers, L0 to L6.

Its ladder is longer and dearer than the default family's: what routing is measured on. So more rows are held out, to
know more of its cascades, and every row of the test part is kept for load tests: 512 rows have an error of 1.6 points.
"""

from __future__ import annotations

from variants.families.sentiment.recipe import ExitsOfMiniLM
from variants.families.sentiment.train import Schedule
from variants.spec import BuildStage

EXITS = ExitsOfMiniLM(depth=6, schedule=Schedule(epochs=2, encoder_rate=2e-4), validation=2000)
"""What strategies on text start from."""

FAMILY = EXITS.family(
    name="sentiment-deep",
    description="Short English review sentences: negative or positive? Six layers deep.",
    default_slo_s=0.1,
    samples=2000,
    expected_s={
        BuildStage.DATA: 3.0,
        BuildStage.TRAIN: 100.0,
        BuildStage.VARIANTS: 11.0,
        BuildStage.COUNTERPARTS: 240.0,
        BuildStage.EVALUATE: 60.0,
        BuildStage.PROFILE: 12.0,
        BuildStage.PUBLISH: 3.0,
    },
)
