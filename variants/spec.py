"""What a model family is, told by whoever brings it: the public interface for a family of one's own.

A family is one Python file (or package) with a module-level `FAMILY = FamilySpec(...)`. It says what the family takes
and gives, loads its labelled rows, trains or loads its model, and yields the compressed forms to be tried. All that
follows is the same for every family and happens in `variants.build`: parity, accuracy, calibration, batch invariance,
latency, the Pareto frontier, and the atomic write into the model repository.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from variants.manifest import Preparation, TensorSpec
from variants.measurements import BATCH_TOLERANCE
from variants.preparation import Feeds, Preparer, preparer_for
from variants.recipes.artifact import Artifact

PARITY_TOLERANCE = 1e-3
"""Largest difference between the logits of an exported fp32 graph and of the original that float32 arithmetic explains,
as a share of the largest logit, or of 1 where all are smaller."""
STAGES_FOLDER = "stages"
"""Where a revision keeps the stages of its chains: `stages/<name>.onnx`."""


class BuildError(Exception):
    """A family cannot be built. The message is one line that says what to do."""


class BuildStage(StrEnum):
    """The parts of a build, in their order; what the progress bar names.

    Counterparts are built where asked for; a built revision is ported to other runtimes in a build of its own.
    """

    DATA = "data"
    TRAIN = "train"
    VARIANTS = "variants"
    COUNTERPARTS = "counterparts"
    PORT = "port"
    EVALUATE = "evaluate"
    PROFILE = "profile"
    PUBLISH = "publish"


@dataclass(frozen=True, slots=True)
class LabelledRows:
    """Rows as requests bring them (one array [n, ...] per input; text as object arrays of UTF-8 bytes) with labels.

    `labels` int64 [n] are indices into the family's labels.
    """

    inputs: Mapping[str, NDArray[Any]]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: NDArray[np.int64] | slice) -> LabelledRows:
        """Return the chosen rows."""
        return LabelledRows({name: values[rows] for name, values in self.inputs.items()}, self.labels[rows])


@dataclass(frozen=True, slots=True)
class Dataset:
    """Three disjoint parts: to learn from, to calibrate on, and to measure on (seen by nothing before that)."""

    train: LabelledRows
    validation: LabelledRows
    test: LabelledRows


def split(rows: LabelledRows, *, train: int, validation: int, seed: int) -> Dataset:
    """Shuffle the rows and cut them into `train`, `validation` and a test part of what remains.

    Raises `ValueError` where nothing remains to test on.
    """
    if len(rows) <= train + validation:
        raise ValueError(f"{len(rows)} rows leave nothing to test on after {train} + {validation}")
    order = np.random.default_rng(seed).permutation(len(rows))
    ends = [train, train + validation]
    return Dataset(*(rows.take(part) for part in np.split(order, ends)))


@dataclass(frozen=True, slots=True)
class BuildContext:
    """What the build lends a family while it loads, trains and exports.

    `staging` is the revision's folder to be: shared files such as a tokenizer are written there, and models to
    `model_path` and `stage_path`. `scratch` is removed after the build. `cache` outlives it (downloads, weights).
    `advance` reports the fraction in [0, 1] done of the current stage; `log` shows the user one line.
    """

    spec: FamilySpec
    staging: Path
    scratch: Path
    cache: Path
    advance: Callable[[float], None]
    log: Callable[[str], None]

    def model_path(self, variant: str) -> Path:
        """Return where a variant's whole graph belongs, its folder made."""
        return _in_folder(self.staging / variant / "model.onnx")

    def stage_path(self, stage: str) -> Path:
        """Return where a stage of a chain belongs, its folder made."""
        return _in_folder(self.staging / STAGES_FOLDER / f"{stage}.onnx")

    def preparer(self) -> Preparer:
        """Open the family's preparation. Raises `RepositoryError` where its tokenizer is not in `staging` yet."""
        (tensor,) = self.spec.inputs
        return preparer_for(self.spec.preparation, tensor, lambda name: self.staging / name)


def _in_folder(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


@dataclass(frozen=True, slots=True)
class Candidate:
    """One form of the model that is worth trying.

    `make` writes the ONNX file at the path it is given (and any stage of `stages` that is not there yet) and says
    what it made; where it raises, the variant is left out with that reason, unless it is `essential`: then the build
    fails. `stages` names the chain's stages that form the same network. `reference` gives the logits float32 [n, k]
    that the original model answers to the same feeds, for the parity check: an export (`Artifact.recipe`) that differs
    by more than `tolerance`, of which see `PARITY_TOLERANCE`, is left out. `counterpart` names the exit of a chain
    that this candidate, trained on its own, is compared with in reports; it competes with no variant.
    """

    name: str
    make: Callable[[Path], Artifact]
    essential: bool = False
    stages: tuple[str, ...] = ()
    reference: Callable[[Feeds], NDArray[np.float32]] | None = None
    tolerance: float = PARITY_TOLERANCE
    notes: str = ""
    counterpart: str = ""


@dataclass(frozen=True, slots=True)
class FamilySpec:
    """A model family: what it takes and gives, and how its variants come about.

    `load` returns the labelled rows (and writes shared files such as a tokenizer); `build` trains or loads the model,
    then yields the candidates. `counterparts`, where asked for, trains what exits are compared with, networks that end
    there, and yields them as candidates that name the exit. `sizes` are the ascending size classes in tokens, (1,) for
    tensors. `default_slo_s` is the latency objective of requests that name none. `batch_tolerance`, in [1e-6, 0.1], is
    how far a calibrated probability may move with the other rows of a batch: variants of which one moves further, or a
    label changes, compete with none. `samples` rows of the test part are stored with the revision for load tests.
    `expected_s` are the seconds that the stages take on two cores, for the estimate of remaining time.
    Where nothing is trained, because the model comes as it is, `trains` is False, and no stage is called so.
    Where the rows are not `labelled`, their labels are the original model's own answers: quality is agreement with it,
    and there is nothing to calibrate confidence against.
    ONNX files take the inputs that `variants.preparation` names and give `logits` float32 [n, len(labels)].
    """

    name: str
    description: str
    labels: tuple[str, ...]
    inputs: tuple[TensorSpec, ...]
    preparation: Preparation
    load: Callable[[BuildContext], Dataset]
    build: Callable[[BuildContext, Dataset], Iterator[Candidate]]
    default_slo_s: float
    counterparts: Callable[[BuildContext, Dataset], Iterator[Candidate]] | None = None
    task: str = "classification"
    labelled: bool = True
    trains: bool = True
    sizes: tuple[int, ...] = (1,)
    max_batch: int = 32
    batch_tolerance: float = BATCH_TOLERANCE
    seed: int = 0
    samples: int = 512
    source: str = ""
    licence: str = ""
    expected_s: Mapping[BuildStage, float] = field(default_factory=dict)

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """What every classifier of the gateway answers: the label, its confidence, and all probabilities."""
        return (
            TensorSpec(name="label", datatype="BYTES", shape=(-1,)),
            TensorSpec(name="confidence", datatype="FP32", shape=(-1,)),
            TensorSpec(name="probabilities", datatype="FP32", shape=(-1, len(self.labels))),
        )


def check_dataset(data: object, spec: FamilySpec) -> None:
    """Hold a family's data against what its spec says of it. Raises `ValueError` naming the part and the fault."""
    if not isinstance(data, Dataset):
        raise ValueError(f"it returned a {type(data).__name__}, not a Dataset")  # noqa: TRY004 - as all faults here
    for part in ("train", "validation", "test"):
        rows: LabelledRows = getattr(data, part)
        if np.asarray(rows.labels).dtype.kind not in "iu" or np.ndim(rows.labels) != 1:
            raise ValueError(f"the {part} part has labels that are no integers [n]")
        if not len(rows):
            raise ValueError(f"the {part} part has no rows")
        if set(rows.inputs) != {tensor.name for tensor in spec.inputs}:
            wanted = ", ".join(repr(tensor.name) for tensor in spec.inputs)
            raise ValueError(f"the {part} part has inputs {sorted(rows.inputs)}, the spec says {wanted}")
        for tensor in spec.inputs:
            shape = np.shape(rows.inputs[tensor.name])
            fits = len(shape) == len(tensor.shape) and all(
                wanted in (-1, length) for length, wanted in zip(shape, tensor.shape, strict=True)
            )
            if not fits or shape[0] != len(rows):
                raise ValueError(
                    f"the {part} part has {tensor.name} of shape {list(shape)} for {len(rows)} labels, "
                    f"the spec says {list(tensor.shape)}"
                )
        least, most = int(rows.labels.min()), int(rows.labels.max())
        if least < 0 or most >= len(spec.labels):
            raise ValueError(f"the {part} part has labels {least} to {most}, the spec names {len(spec.labels)}")
