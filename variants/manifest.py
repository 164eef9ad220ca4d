"""What `family.json` says: one revision of a family, its variants and every file it consists of.

The manifest is the contract between the machine that builds a family and the one that serves it, so it is validated
whole when it is read: a value out of range, an unknown field, a file name that leads out of the revision's folder or
a reference to something that is not there raises `pydantic.ValidationError` with the place of the fault.

Fractions (qualities, errors, probabilities) lie in [0, 1]; sizes are bytes; durations are seconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Literal, NamedTuple, Self

from pydantic import AwareDatetime, Field, ValidationError, model_validator

from variants.frozen import Frozen
from variants.interface import Preparation, TensorPreparation, TensorSpec, TextPreparation, check_rows
from variants.measurements import (
    BATCH_TOLERANCE,
    BatchTolerance,
    Fraction,
    Invariance,
    Parity,
    Quality,
    Training,
)
from variants.naming import (
    ACTIVE_FILE,
    EXPORTS_FOLDER,
    MANIFEST_FILE,
    NAME_PATTERN,
    PROFILES_FOLDER,
    SAMPLES_FILE,
    Name,
    RelativePath,
)
from variants.runtimes.table import ONNXRUNTIME
from variants.shared_parts import NOTHING_SHARED, Sha256, SharedParts, shared_file

__all__ = [
    "ACTIVE_FILE",
    "EXPORTS_FOLDER",
    "MANIFEST_FILE",
    "NAME_PATTERN",
    "PROFILES_FOLDER",
    "SAMPLES_FILE",
    "SCHEMA_VERSION",
    "FamilyManifest",
    "FileEntry",
    "Fraction",
    "Invariance",
    "ModelFile",
    "Parity",
    "Preparation",
    "Quality",
    "StageManifest",
    "TensorPreparation",
    "TensorSpec",
    "TextPreparation",
    "Training",
    "VariantManifest",
    "first_fault",
]

SCHEMA_VERSION: Literal[1] = 1


def first_fault(error: ValidationError) -> str:
    """Return the place of a fault and what is wrong there, in one line that says how many more there are."""
    fault = error.errors(include_url=False, include_context=False, include_input=False)[0]
    place = ".".join(str(part) for part in fault["loc"])
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    return f"{place + ': ' if place else ''}{' '.join(fault['msg'].removeprefix('Value error, ').split())}{more}"


def _first_duplicate(names: Iterable[str]) -> str | None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None


class FileEntry(Frozen):
    """One file of the revision, by its path relative to the revision's folder."""

    path: RelativePath
    sha256: Sha256
    size_bytes: Annotated[int, Field(ge=0)]


class ModelFile(NamedTuple):
    """A model's file, relative to the revision's folder, and the runtime that it is opened by."""

    path: str
    runtime: str = ONNXRUNTIME

    @property
    def key(self) -> str:
        """What tells it from the same file under another runtime."""
        return self.path if self.runtime == ONNXRUNTIME else f"{self.path} by {self.runtime}"


class StageManifest(Frozen):
    """One stage of a chain, stored once per revision and shared by the variants whose path runs through it."""

    name: Name
    file: RelativePath
    runtime: Name = ONNXRUNTIME

    @property
    def model(self) -> ModelFile:
        """What is opened to run it."""
        return ModelFile(self.file, self.runtime)


class VariantManifest(Frozen):
    """One compressed form of the family's model.

    `lineage` tells from which model through which steps it came. `stages` names, in order, the stages of the chain
    that form the same network as `model_file`; empty if there is no such chain. Logits are divided by `temperature`
    before the softmax. `parameters` counts weights; `size_bytes` is the size of `model_file` with all that it keeps in
    shared files. `counterpart` names the exit of a chain that this variant is the separately trained form of. `runtime`
    is what `model_file` is made for, one of `variants.runtimes.table`; another one than onnxruntime is a port, and
    `parity` says of which variant and how well it agrees with it.

    Unknown in revisions of older builds: `macs`, the multiplications with addition of one row of the middle size class;
    `training`; `scores_file`, the score of every row of the test part (`variants.scores`), without which it is served
    all the same.
    """

    name: Name
    recipe: str
    lineage: tuple[str, ...]
    model_file: RelativePath
    calibration_file: RelativePath
    stages: tuple[Name, ...] = ()
    quality: Quality
    invariance: Invariance
    temperature: Annotated[float, Field(gt=0.0)] = 1.0
    parameters: Annotated[int, Field(ge=0)]
    size_bytes: Annotated[int, Field(ge=0)]
    macs: Annotated[int, Field(ge=0)] | None = None
    training: Training | None = None
    scores_file: RelativePath | None = None
    counterpart: Name | None = None
    runtime: Name = ONNXRUNTIME
    parity: Parity | None = None
    on_frontier: bool
    load_by_default: bool
    notes: str = ""

    @property
    def model(self) -> ModelFile:
        """What is opened to run it whole."""
        return ModelFile(self.model_file, self.runtime)


class FamilyManifest(Frozen):
    """One revision of a family, whole.

    `outputs` are among those that a classifier answers: `label` BYTES [-1], `confidence` FP32 [-1] and `probabilities`
    FP32 [-1, k], k labels.
    `sizes` are the ascending upper bounds of the size classes in tokens, (1,) for tensor families; the last one holds
    the longest row that preparation makes. `graphs` has what graph files keep in files that others may refer to; a
    graph that is not there is whole in its own file, as all are in revisions of older builds. `files` lists every file
    of the revision but `family.json` and the profiles; it is empty only before the revision is published.
    `batch_tolerance` is by how much a calibrated probability may move with the other rows of a batch for a variant to
    compete (`variants.selection`).
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    name: Name
    revision: Name
    task: str = "classification"
    description: str
    inputs: Annotated[tuple[TensorSpec, ...], Field(min_length=1, max_length=1)]
    outputs: Annotated[tuple[TensorSpec, ...], Field(min_length=1)]
    labels: Annotated[tuple[str, ...], Field(min_length=2)]
    preparation: Preparation
    sizes: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)] = (1,)
    max_batch: Annotated[int, Field(ge=1, le=1024)] = 32
    default_slo_s: Annotated[float, Field(gt=0.0)]
    batch_tolerance: BatchTolerance = BATCH_TOLERANCE
    variants: Annotated[tuple[VariantManifest, ...], Field(min_length=1)]
    stages: tuple[StageManifest, ...] = ()
    graphs: Mapping[RelativePath, SharedParts] = Field(default_factory=dict)
    files: tuple[FileEntry, ...] = ()
    created: AwareDatetime
    source: str = ""
    licence: str = ""
    build: Mapping[str, str | float] = Field(default_factory=dict)

    def variant(self, name: str) -> VariantManifest:
        """Return the variant of that name. Raises `KeyError` naming it where the revision has none."""
        for variant in self.variants:
            if variant.name == name:
                return variant
        raise KeyError(name)

    def path_of(self, variant: VariantManifest, *, staged: bool = False) -> tuple[ModelFile, ...]:
        """Return what is opened to run a variant: its whole graph or, where it has one and is `staged`, its chain."""
        stages = {stage.name: stage.model for stage in self.stages}
        return tuple(stages[name] for name in variant.stages if staged) or (variant.model,)

    def files_of(self, variant: VariantManifest) -> tuple[str, ...]:
        """Return the paths of all files that the variant cannot be served without."""
        stage_files = {stage.name: stage.file for stage in self.stages}
        tokenizer = (self.preparation.tokenizer_file,) if isinstance(self.preparation, TextPreparation) else ()
        graphs = (variant.model_file, *(stage_files[name] for name in variant.stages))
        parts = dict.fromkeys(part for graph in graphs for part in self.parts_of(graph).files)
        return (*graphs, variant.calibration_file, *parts, *tokenizer)

    @property
    def table_files(self) -> frozenset[str]:
        """The paths of all lookup tables."""
        return frozenset(shared_file(table.sha256) for parts in self.graphs.values() for table in parts.tables)

    def parts_of(self, graph: str) -> SharedParts:
        """Return what a graph file keeps in files that others may refer to as well."""
        return self.graphs.get(graph, NOTHING_SHARED)

    @model_validator(mode="after")
    def _names_agree(self) -> Self:
        if self.revision == ACTIVE_FILE:
            raise ValueError(f"a revision cannot be called {ACTIVE_FILE}")
        named = {
            "variants": [variant.name for variant in self.variants],
            "stages": [stage.name for stage in self.stages],
            "labels": self.labels,
            "outputs": [tensor.name for tensor in self.outputs],
            "files": [entry.path for entry in self.files],
        }
        for field, names in named.items():
            if (name := _first_duplicate(names)) is not None:
                raise ValueError(f"{field}: two are called {name!r}")
        for variant in self.variants:
            if missing := set(variant.stages) - set(named["stages"]):
                raise ValueError(f"variant {variant.name}: no stage {min(missing)!r} in this revision")
            if variant.parity is not None and variant.parity.reference not in named["variants"]:
                raise ValueError(f"variant {variant.name}: no variant {variant.parity.reference!r} to be a port of")
            if variant.counterpart is not None and variant.counterpart not in named["variants"]:
                raise ValueError(f"variant {variant.name}: no variant {variant.counterpart!r} to be the counterpart of")
            if self.files and (absent := set(self.files_of(variant)) - set(named["files"])):
                raise ValueError(f"variant {variant.name}: {min(absent)!r} is not among the revision's files")
        return self

    @model_validator(mode="after")
    def _outputs_are_answered(self) -> Self:
        answered = {"label": "BYTES [-1]", "confidence": "FP32 [-1]", "probabilities": f"FP32 [-1, {len(self.labels)}]"}
        for tensor in self.outputs:
            given = f"{tensor.datatype} {list(tensor.shape)}"
            if answered.get(tensor.name) != given:
                known = ", ".join(f"{name} {kind}" for name, kind in answered.items())
                raise ValueError(f"outputs: {tensor.name} {given} is not one of {known}")
        return self

    @model_validator(mode="after")
    def _rows_fit_the_sizes(self) -> Self:
        (tensor,) = self.inputs
        check_rows(tensor, self.preparation, self.sizes)
        return self
