from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from variants.manifest import VariantManifest
from variants.measurements import BATCH_TOLERANCE
from variants.selection import own_notes, select


def variant(name: str, quality: float, size_bytes: int, delta: float = 0.0, flips: float = 0.0) -> VariantManifest:
    fields = dict.fromkeys(("value", "precision", "recall", "f1"), quality)
    return VariantManifest.model_validate(
        {
            "name": name,
            "recipe": "none",
            "lineage": (),
            "model_file": f"{name}/model.onnx",
            "calibration_file": f"{name}/calibration.npz",
            "quality": {**fields, "standard_error": 0.01, "samples": 1000},
            "invariance": {
                "invariant": not flips and delta <= BATCH_TOLERANCE,
                "label_flips": flips,
                "max_probability_delta": delta,
                "compared_rows": 1,
            },
            "parameters": 1,
            "size_bytes": size_bytes,
            "on_frontier": False,
            "load_by_default": False,
        }
    )


def right(rows: int) -> NDArray[np.bool_]:
    """Of 1000 rows the first are right."""
    return np.arange(1000) < rows


def test_accuracy_within_the_noise_is_not_worth_its_price() -> None:
    """On the frontier by one row of a thousand, but slower and larger: kept on disk; a clear gain is loaded."""
    variants = [variant("small", 0.800, 10), variant("fp32", 0.801, 40), variant("deep", 0.85, 80)]
    latency_s = {"small": 0.001, "fp32": 0.003, "deep": 0.005}
    correct = {"small": right(800), "fp32": right(801), "deep": right(850)}
    chosen = select(variants, latency_s, correct, BATCH_TOLERANCE)
    assert [True, True, True] == [one.on_frontier for one in chosen]
    assert [True, False, True] == [one.load_by_default for one in chosen]
    assert "no more than one standard error better than small, which is faster and smaller" == chosen[1].notes


def test_graded_scores_are_weighed_as_right_and_wrong_are() -> None:
    """Where rows have scores between 0 and 1, a steady gain is loaded and one within the noise is not."""
    variants = [variant("small", 0.5, 10), variant("steady", 0.52, 40), variant("noisy", 0.53, 80)]
    noise = np.random.default_rng(0).normal(0, 1, 1000)
    scores = {"small": np.full(1000, 0.5), "steady": np.full(1000, 0.52), "noisy": 0.53 + noise - noise.mean()}
    chosen = select(variants, {"small": 0.001, "steady": 0.002, "noisy": 0.003}, scores, BATCH_TOLERANCE)
    assert [True, True, False] == [one.load_by_default for one in chosen]


def test_a_variant_that_depends_on_its_batch_does_not_compete() -> None:
    """It neither is on the frontier nor keeps another off it, unless there is no other."""
    variants = [variant("dynamic", 0.9, 10, delta=0.16, flips=0.02), variant("rowwise", 0.89, 11)]
    latency_s = {"dynamic": 0.001, "rowwise": 0.002}
    correct = {"dynamic": right(900), "rowwise": right(890)}
    chosen = select(variants, latency_s, correct, BATCH_TOLERANCE)
    assert [(False, False), (True, True)] == [(one.on_frontier, one.load_by_default) for one in chosen]
    [alone] = select(variants[:1], latency_s, correct, BATCH_TOLERANCE)
    assert alone.load_by_default


@pytest.mark.parametrize(
    ("delta", "flips", "tolerance", "note"),
    [
        (2e-7, 0.0, 1e-3, ""),
        (2.8e-3, 0.0, 5e-3, ""),
        (2.8e-3, 0.0, 2.8e-3, ""),
        (2.8e-3, 0.0, 1e-3, ": probabilities move by 0.0028, more than 0.001"),
        (2e-4, 0.0, 1e-4, ": probabilities move by 0.0002, more than 0.0001"),
        (1e-4, 0.008, 0.1, ": 0.8 % of labels change"),
    ],
)
def test_how_far_answers_may_move_decides_who_competes(delta: float, flips: float, tolerance: float, note: str) -> None:
    """Within the tolerance a variant is one of all; beyond it, or where a label changes, its note says by how much."""
    variants = [variant("moving", 0.9, 10, delta, flips), variant("steady", 0.89, 11)]
    scores = {"moving": right(900), "steady": right(890)}
    moving, steady = select(variants, {"moving": 0.001, "steady": 0.002}, scores, tolerance)
    assert (not note, bool(note)) == (moving.on_frontier, steady.on_frontier)
    assert (f"its answers depend on the rows that share the batch{note}" if note else "") == moving.notes
    assert "" == own_notes(moving)


def test_a_counterpart_competes_with_nobody() -> None:
    """A network that was trained to compare an exit with is never on the frontier, nor keeps the exit off it."""
    yardstick = variant("alone", 0.95, 1).model_copy(update={"counterpart": "exit"})
    chosen = select(
        [variant("exit", 0.9, 10), yardstick],
        {"exit": 0.002, "alone": 0.001},
        {"exit": right(900), "alone": right(950)},
        BATCH_TOLERANCE,
    )
    assert [(True, True), (False, False)] == [(one.on_frontier, one.load_by_default) for one in chosen]
    assert "trained for comparison with exit" == chosen[1].notes
