"""A foreign model and its rows as a family spec: from there on it is built, measured and served like any other."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from variants import evaluate
from variants.atomic import sha256_of
from variants.candidates import PARITY_ROWS
from variants.importing.answer import Answer, Kind, answer_of
from variants.importing.model import ForeignModel, read_model
from variants.importing.rows import SampleFile, read_samples
from variants.manifest import TensorPreparation, TensorSpec
from variants.preparation import Feeds, TensorPreparer
from variants.recipes.artifact import EXPORT, Artifact, RecipeError
from variants.recipes.codebook import clustered
from variants.recipes.dynamic_int8 import dynamic_int8
from variants.recipes.half_weights import Half, half_weights
from variants.recipes.rowwise_int8 import rowwise_int8
from variants.recipes.slim import slim
from variants.recipes.static_int8 import IMAGE_OPERATORS, Calibration, static_int8
from variants.recipes.weight_only import weight_only
from variants.session import open_session
from variants.spec import (
    PARITY_TOLERANCE,
    BuildContext,
    BuildError,
    Candidate,
    Dataset,
    FamilySpec,
    LabelledRows,
    split,
)

ORIGINAL = "fp32"
CALIBRATION_BATCH = 16
CALIBRATION_ROWS = 512
VALIDATION_ROWS = 2000
HALF_TOLERANCE = 1e-2
"""`PARITY_TOLERANCE` of models that compute in fp16, which has 11 bits."""
SLO_IN_ANSWERS = 20.0
"""Where no SLO is given: so many times what the model takes for one row, at least `LEAST_SLO_S`."""
LEAST_SLO_S = 0.05

Make = Callable[[Artifact, Path, Sequence[Feeds]], Artifact]


def _static(method: Calibration) -> Make:
    def make(source: Artifact, path: Path, batches: Sequence[Feeds]) -> Artifact:
        return static_int8(source, path, batches, operators=IMAGE_OPERATORS, method=method)

    return make


RECIPES: Mapping[str, Make] = {
    "int8": lambda source, path, _: rowwise_int8(source, path),
    "int8-static": _static(Calibration.MINMAX),
    "int8-static-entropy": _static(Calibration.ENTROPY),
    "int8-static-percentile": _static(Calibration.PERCENTILE),
    "fp16": lambda source, path, _: half_weights(source, path, Half.FP16),
    "bf16": lambda source, path, _: half_weights(source, path, Half.BF16),
    "int8-weights": lambda source, path, _: weight_only(source, path, bits=8),
    "int4-weights": lambda source, path, _: weight_only(source, path, bits=4),
    "clustered": lambda source, path, _: clustered(source, path),
    "int8-dynamic": lambda source, path, _: dynamic_int8(source, path),
}
"""What may be made of an imported model, by the name that the variant gets."""
DEFAULT_RECIPES = ("int8", "int8-static", "fp16")


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """What is said of a model beside the model. `mean` and `scale` make `(x - mean) / scale` of what requests send.

    `output` names the output to read where there are several; `slo_s` is the default latency objective in seconds.
    """

    recipes: Sequence[str] = DEFAULT_RECIPES
    output: str | None = None
    mean: float = 0.0
    scale: float = 1.0
    slo_s: float | None = None
    description: str = ""


def imported_family(name: str, model: Path, samples: Path, options: ImportOptions | None = None) -> FamilySpec:
    """Return the family of an ONNX model and the rows of an .npz file (see `variants.importing.rows`).

    Raises `BuildError`, one line, where one of them cannot be read or both do not belong together.
    """
    options = options or ImportOptions()
    if unknown := [recipe for recipe in options.recipes if recipe not in RECIPES]:
        raise BuildError(f"recipe {unknown[0]!r} is unknown, known are {', '.join(RECIPES)}")
    foreign = read_model(model, options.output)
    rows = read_samples(samples, foreign.input_name)
    foreign.check_rows(rows.rows)
    tensor = TensorSpec(name=foreign.input_name, datatype=rows.datatype, shape=(-1, *rows.rows.shape[1:]))
    preparation = TensorPreparation(mean=options.mean, scale=options.scale)
    preparer = TensorPreparer(preparation, tensor)
    prepared = preparer.collate(preparer.prepare({tensor.name: rows.rows}).values)[tensor.name]
    answer = answer_of(foreign, prepared)
    rows.check_labels(answer.classes)
    source = _Imported(foreign, rows, prepared, answer, options.recipes)
    labelled = rows.label is not None
    return FamilySpec(
        name=name,
        description=options.description or f"Imported from {model.name}",
        labels=rows.names or tuple(str(number) for number in range(answer.classes)),
        inputs=(tensor,),
        preparation=preparation,
        load=source.load,
        build=source.build,
        default_slo_s=options.slo_s or source.usual_slo_s(),
        labelled=labelled,
        trains=False,
        source="; ".join(
            [*(f"{path.name}, SHA-256 {sha256_of(path)}" for path in foreign.files), f"rows: {samples.name}"]
        ),
    )


@dataclass(frozen=True)
class _Imported:
    """`prepared` are all rows as the model sees them, float32 [n, ...]."""

    foreign: ForeignModel
    samples: SampleFile
    prepared: NDArray[np.float32]
    answer: Answer
    recipes: Sequence[str]

    @cached_property
    def reference(self) -> Callable[[Feeds], NDArray[np.float32]]:
        """The logits of the file as it came."""
        return self.answer.reference()

    @property
    def tolerance(self) -> float:
        """How far exports may be from the file: what is 16 bits wide there is not rounded where the graph is fused."""
        return HALF_TOLERANCE if self.foreign.is_half else PARITY_TOLERANCE

    def usual_slo_s(self) -> float:
        """Return a latency objective in seconds that leaves room for queueing, with two digits."""
        feeds = {self.foreign.input_name: self.prepared[:1]}
        durations = []
        for _ in range(5):
            started_s = time.perf_counter()
            self.reference(feeds)
            durations.append(time.perf_counter() - started_s)
        slo_s = max(LEAST_SLO_S, SLO_IN_ANSWERS * min(durations))
        digits = 1 - math.floor(math.log10(slo_s))
        return round(slo_s, digits)

    def load(self, context: BuildContext) -> Dataset:
        """Return the rows in three parts; where they have no labels, the model's own answers stand in for them."""
        labels = self.samples.label
        if labels is None:
            labels = self._own_answers()
        quarter = len(labels) // 4
        return split(
            LabelledRows({self.foreign.input_name: self.samples.rows}, labels),
            train=min(quarter, CALIBRATION_ROWS),
            validation=min(quarter, VALIDATION_ROWS),
            seed=context.spec.seed,
        )

    def build(self, context: BuildContext, data: Dataset) -> Iterator[Candidate]:
        """Yield the model itself, then its compressed forms."""
        source = self._original(context)
        yield Candidate(
            ORIGINAL,
            lambda path: _copied(source, path),
            essential=True,
            reference=self.reference,
            tolerance=self.tolerance,
        )
        batches = self._calibration(context, data)

        def compressed(name: str) -> Candidate:
            make = RECIPES[name]
            return Candidate(name, lambda path: make(source, path, batches), reference=self.reference)

        yield from map(compressed, dict.fromkeys(self.recipes))

    def _own_answers(self) -> NDArray[np.int64]:
        name, batch = self.foreign.input_name, evaluate.BATCH
        answers = [
            self.reference({name: self.prepared[start : start + batch]}).argmax(axis=1)
            for start in range(0, len(self.prepared), batch)
        ]
        return np.concatenate(answers)

    def _original(self, context: BuildContext) -> Artifact:
        """Write the model in the form that is served, slimmed where that does not change its answers."""
        path = context.scratch / "served.onnx"
        model = self.answer.served(self.prepared.shape[1:])
        parameters = sum(math.prod(tensor.dims) for tensor in model.graph.initializer if tensor.data_type in _WEIGHTS)
        onnx.save(model, path)
        served = Artifact(path, EXPORT, (self.foreign.path.name, *_STEPS[self.answer.kind]), parameters)
        try:
            slimmed = slim(served, context.scratch / "slim.onnx")
        except RecipeError as error:
            context.log(f"not slimmed: {error}")
            return served
        feeds = {self.foreign.input_name: self.prepared[:PARITY_ROWS]}
        difference, share = evaluate.largest_difference(open_session(slimmed.path), self.reference, feeds)
        if share <= self.tolerance:
            return slimmed
        context.log(f"not slimmed: that changes logits by {difference:.3g}")
        return served

    def _calibration(self, context: BuildContext, data: Dataset) -> list[Feeds]:
        """Return the first part of the rows in batches of equal shape."""
        preparer = context.preparer()
        rows = preparer.prepare(data.train.inputs).values
        batch = min(CALIBRATION_BATCH, len(rows))
        return [preparer.collate(rows[start : start + batch]) for start in range(0, len(rows) - batch + 1, batch)]


_STEPS: Mapping[Kind, tuple[str, ...]] = {
    Kind.LOGITS: (),
    Kind.SOFTMAX: ("softmax cut off",),
    Kind.PROBABILITIES: ("logarithm of its probabilities",),
}
"""What was done to the file to have logits, for the lineage."""
_WEIGHTS = {
    *(onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16, onnx.TensorProto.DOUBLE),
    *(onnx.TensorProto.INT8, onnx.TensorProto.UINT8),
}


def _copied(source: Artifact, path: Path) -> Artifact:
    path.write_bytes(source.path.read_bytes())
    return Artifact(path, source.recipe, source.lineage, source.parameters)
