"""Everything that is measured of a made variant but its latency: quality, calibration, batch invariance, MACs.

Where there are no labels, the original model's answers stand in for them: what is measured then is agreement.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from variants.calibrate import Calibrated, calibrate
from variants.evaluate import Logits, predict
from variants.invariance import batch_invariance
from variants.macs import count_macs
from variants.measurements import Invariance, Quality
from variants.preparation import Feeds, Preparer, Row
from variants.recipes.artifact import Artifact
from variants.runtimes.table import ONNXRUNTIME
from variants.scores import SCORES_FILE, save_scores
from variants.session import Session, SessionOptions, open_session
from variants.tasks import CLASSIFICATION

INVARIANCE_ROWS = 128


@dataclass(frozen=True, slots=True)
class MadeVariant:
    """A variant that was written and passed its checks. It is opened when needed: together they may fill the memory.

    `stages` has, in order, the files of a chain that was seen to answer bit for bit as the whole graph; it is empty
    where there is no such chain. `counterpart` is the name of the exit that it is the separately trained form of, if it
    is one. `runtime` is what all its files are opened by, for rows of up to `longest` tokens.
    """

    name: str
    artifact: Artifact
    stages: Mapping[str, Path]
    notes: str = ""
    counterpart: str = ""
    runtime: str = ONNXRUNTIME
    longest: int | None = None

    def open(self, file: Path, slots: int = 1) -> Session:
        """Open one of its files. Raises `ModelLoadError`."""
        options = SessionOptions(slots=slots, longest=self.longest)
        return open_session(file, options, runtime=self.runtime)

    def path(self, slots: int = 1) -> list[Session]:
        """Open its stages or, where it has none, its whole graph. Raises `ModelLoadError`."""
        return [self.open(file, slots) for file in self.stages.values() or (self.artifact.path,)]


@dataclass(frozen=True, slots=True)
class Assessment:
    """What was measured of a variant. `scores` float64 [n] are those of the test part, 1 for a right answer, 0 else.

    `macs` are of one row of the middle size class, None where the graph has operators that cannot be counted, or is no
    ONNX graph of its own.
    """

    quality: Quality
    invariance: Invariance
    calibrated: Calibrated
    scores: NDArray[np.float64]
    macs: int | None

    def store(self, folder: Path, variant: str) -> tuple[str, str]:
        """Write what it answered in a revision's folder; return where: the files of calibration and of scores."""
        calibration_file, scores_file = f"{variant}/calibration.npz", f"{variant}/{SCORES_FILE}"
        (folder / variant).mkdir(exist_ok=True)
        self.calibrated.save(folder / calibration_file)
        save_scores(folder / scores_file, self.scores)
        return calibration_file, scores_file


@dataclass(frozen=True, slots=True)
class HeldOut:
    """The prepared rows and int64 labels of the validation and test parts; the first `samples` test rows are kept.

    Labels that are not `labelled` are the original model's answers. `size` is the middle size class in tokens, 1 for
    tensors.
    """

    validation: Sequence[Row]
    validation_labels: NDArray[np.int64]
    test: Sequence[Row]
    test_labels: NDArray[np.int64]
    samples: int
    size: int = 1
    labelled: bool = True


def assess(
    made: Sequence[MadeVariant],
    preparer: Preparer,
    rows: HeldOut,
    *,
    seed: int,
    jobs: int,
    advance: Callable[[float], None],
) -> dict[str, Assessment]:
    """Measure every variant, by name, but for those that give some row logits that are not finite.

    `advance` is told the fraction done, in [0, 1].
    """
    half = 0.5
    logits = _answers(made, preparer, [*rows.validation, *rows.test], jobs, lambda done: advance(half * done))
    assessments = {}
    for number, variant in enumerate(made, start=1):
        if not np.isfinite(logits[variant.name]).all():
            continue
        on_validation, on_test = np.split(logits[variant.name], [len(rows.validation)])
        temperature = None if rows.labelled else 1.0
        calibrated = calibrate(on_validation, rows.validation_labels, on_test[: rows.samples], seed, temperature)
        session = variant.open(variant.artifact.path, jobs)
        some = rows.test[:INVARIANCE_ROWS]
        invariance = batch_invariance(session, preparer, some, temperature=calibrated.temperature, jobs=jobs)
        measured = CLASSIFICATION.quality(on_test, rows.test_labels)
        assessments[variant.name] = Assessment(
            quality=measured if rows.labelled else measured.model_copy(update={"metric": "agreement"}),
            invariance=invariance,
            calibrated=calibrated,
            scores=CLASSIFICATION.scores(on_test, rows.test_labels),
            macs=_macs(variant, preparer.collate([row_of_size(rows.test[0], rows.size)])),
        )
        advance(half + half * number / len(made))
    return assessments


def _macs(variant: MadeVariant, feeds: Feeds) -> int | None:
    return count_macs(variant.artifact.path, feeds) if variant.runtime == ONNXRUNTIME else None


def row_of_size(row: Row, size: int) -> Row:
    """Return a row of exactly `size` tokens, or the row itself where rows are tensors; its answer means nothing."""
    return row if size == 1 else np.resize(row, size)


def _answers(
    made: Sequence[MadeVariant], preparer: Preparer, rows: Sequence[Row], jobs: int, advance: Callable[[float], None]
) -> dict[str, Logits]:
    """Return each variant's logits for all rows; a path that begins a longer one is answered on the way there."""
    logits: dict[str, Logits] = {}
    for variant in sorted(made, key=lambda variant: len(variant.stages), reverse=True):
        if variant.name in logits:
            continue
        on_the_way = [other for other in made if other.stages and _begins(other.stages, variant.stages)] or [variant]
        answers = predict(variant.path(jobs), preparer, rows, jobs=jobs)
        for other in on_the_way:
            logits[other.name] = answers[max(len(other.stages), 1) - 1]
        advance(len(logits) / len(made))
    return logits


def _begins(stages: Mapping[str, Path], longer: Mapping[str, Path]) -> bool:
    return list(longer)[: len(stages)] == list(stages)
