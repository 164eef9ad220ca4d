"""The words for what is measured of a variant.

Quality, invariance and training are measured once, when it is built, and stand in the manifest. What depends on the
machine (latency, memory, seconds of the processor) stands in that machine's profile: `variants.profiles`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from variants.frozen import Frozen

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
BatchTolerance = Annotated[float, Field(ge=1e-6, le=0.1)]
"""By how much a class probability may move with the other rows of a batch; float32 sums in another order make 1e-6."""
BATCH_TOLERANCE = 1e-3
"""The largest such change that still counts as the same answer, and all that is allowed where nobody says otherwise."""
Metric = Literal["accuracy", "agreement", "explained variance", "rank agreement"]
"""What `Quality.value` is, by task: see `variants.tasks`. `agreement` is accuracy where the original's answers are the
labels."""


class Quality(Frozen):
    """Measured on `samples` rows that neither training nor calibration saw.

    `value` is the metric the router compares, with its standard error. Of classifiers, precision, recall and F1 are
    macro averages with theirs. Where rows have no labels, the original model's answers stand in for them, and `value`
    is agreement with it. `rmse` (in the target's unit) belongs to regression, `cosine` in [-1, 1], the mean over rows,
    to embeddings.
    """

    metric: Metric = "accuracy"
    value: Fraction
    standard_error: Fraction
    precision: Fraction | None = None
    recall: Fraction | None = None
    f1: Fraction | None = None
    precision_error: Fraction | None = None
    recall_error: Fraction | None = None
    f1_error: Fraction | None = None
    rmse: Annotated[float, Field(ge=0.0)] | None = None
    cosine: Annotated[float, Field(ge=-1.0, le=1.0)] | None = None
    samples: Annotated[int, Field(ge=1)]


class Invariance(Frozen):
    """Whether a row's answer depends on the rows that share its batch, measured on `compared_rows` rows.

    `label_flips` is the fraction of rows whose label changed; `max_probability_delta` is the largest change of any
    calibrated class probability. `invariant` is what `within(BATCH_TOLERANCE)` says.
    """

    invariant: bool
    label_flips: Fraction
    max_probability_delta: Fraction
    compared_rows: Annotated[int, Field(ge=0)]

    def within(self, tolerance: float) -> bool:
        """Return whether no label changed, and no probability by more than `tolerance`."""
        return self.label_flips == 0.0 and self.max_probability_delta <= tolerance

    def in_words(self, tolerance: float) -> str:
        """Say in few words whether answers depend on the batch: not, within the tolerance, or more than that."""
        if not self.within(tolerance):
            return "no"
        return "the same" if self.invariant else f"within {tolerance:g}"


class Parity(Frozen):
    """How a variant's answers on another runtime differ from those of `reference`, the same network on onnxruntime.

    Measured on `compared_rows` rows. `max_relative_error` is the largest difference between two logits, as a share of
    the reference's largest logit, or of 1 where all are smaller; `label_flips` is the fraction of rows whose label is
    another one.
    """

    reference: Annotated[str, Field(min_length=1)]
    max_relative_error: Annotated[float, Field(ge=0.0)]
    label_flips: Fraction
    compared_rows: Annotated[int, Field(ge=1)]


class Training(Frozen):
    """What it took to make a variant's weights, all steps of its lineage together; None where nobody counted."""

    seconds: Annotated[float, Field(ge=0.0)] | None = None
    labelled_rows: Annotated[int, Field(ge=0)] | None = None
    peak_memory_bytes: Annotated[int, Field(ge=0)] | None = None


class ServingFootprint(Frozen):
    """What a process of its own took to serve one variant on this machine (`variants.footprint`).

    Bytes of resident memory beyond what the process had before it opened the model: `loaded_bytes` right after that,
    `peak_bytes` at the most while it answered batches of up to `largest_batch` rows of the largest size class.
    `process_peak_bytes` is the whole process at that time. `load_s` is how long opening took. Seconds of the processor
    per answer, all threads together, rows of the middle size class: `cpu_s_alone` one at a time, `cpu_s_batched` in
    batches of `batch`.
    """

    loaded_bytes: Annotated[int, Field(ge=0)]
    peak_bytes: Annotated[int, Field(ge=0)]
    process_peak_bytes: Annotated[int, Field(ge=0)]
    largest_batch: Annotated[int, Field(ge=1)]
    load_s: Annotated[float, Field(ge=0.0)]
    cpu_s_alone: Annotated[float, Field(ge=0.0)]
    cpu_s_batched: Annotated[float, Field(ge=0.0)]
    batch: Annotated[int, Field(ge=1)]

    def energy_j(self, watts_per_core: float) -> tuple[float, float]:
        """Estimate the joules of 1,000 answers, one at a time and in batches.

        Seconds of the processor times what a busy core is said to draw: no meter was read. Memory, fans and what the
        machine draws while idle are not in it.
        """
        return self.cpu_s_alone * 1000 * watts_per_core, self.cpu_s_batched * 1000 * watts_per_core
