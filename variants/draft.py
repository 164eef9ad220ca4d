"""The manifest that a family's spec describes; and, before anything is trained, whether it could be published."""

from __future__ import annotations

import datetime
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from variants.manifest import FamilyManifest, StageManifest, VariantManifest, first_fault
from variants.preparation import LOGITS
from variants.shared_parts import NOTHING_MOVED, Moved
from variants.spec import STAGES_FOLDER, BuildError, FamilySpec
from variants.tasks import CLASSIFICATION

TAKEN_INPUTS = frozenset({LOGITS, "label", "file", "allow_pickle"})
"""What no input may be called: models' output, the labels in `samples.npz`, and the arguments of `numpy.savez`."""


_ANY_FIELDS: Mapping[str, Any] = {"name": "any", "stages": (), "counterpart": None}
_ANY_VARIANT = VariantManifest.model_construct(**_ANY_FIELDS)
"""A manifest needs a variant, but nothing that a spec says depends on which."""


def revision_name(created: datetime.datetime) -> str:
    """Return a name for a revision that begins to be built then; two builds may begin in one second."""
    return f"{created:%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


def draft_manifest(
    spec: FamilySpec,
    revision: str,
    created: datetime.datetime,
    variants: Sequence[VariantManifest],
    facts: Mapping[str, str | float],
    moved: Moved = NOTHING_MOVED,
) -> FamilyManifest:
    """Return the manifest of a revision that is not published yet. Raises `pydantic.ValidationError`."""
    stages = dict.fromkeys(stage for variant in variants for stage in variant.stages)
    stage_files = {stage: f"{STAGES_FOLDER}/{stage}.onnx" for stage in stages}
    return FamilyManifest(
        name=spec.name,
        revision=revision,
        task=spec.task,
        description=spec.description,
        inputs=spec.inputs,
        outputs=spec.outputs,
        labels=spec.labels,
        preparation=spec.preparation,
        sizes=spec.sizes,
        max_batch=spec.max_batch,
        default_slo_s=spec.default_slo_s,
        batch_tolerance=spec.batch_tolerance,
        variants=tuple(variants),
        stages=tuple(StageManifest(name=name, file=moved.files.get(file, file)) for name, file in stage_files.items()),
        graphs=moved.graphs,
        created=created,
        source=spec.source,
        licence=spec.licence,
        build=facts,
    )


def check_spec(spec: FamilySpec) -> None:
    """Hold a spec against what can be built, stored and served. Raises `BuildError` naming the field and the fault."""
    if spec.task != CLASSIFICATION.name:
        raise BuildError(f"{spec.name}: task {spec.task!r}: only families of the task classification can be built")
    if spec.samples < 1:
        raise BuildError(f"{spec.name}: samples: {spec.samples} rows cannot be kept, at least 1 is needed")
    try:
        manifest = draft_manifest(spec, "draft", datetime.datetime.now(datetime.UTC), [_ANY_VARIANT], {})
    except ValidationError as error:
        raise BuildError(f"{spec.name}: the family's spec: {first_fault(error)}") from error
    (tensor,) = manifest.inputs
    if tensor.name in TAKEN_INPUTS:
        raise BuildError(
            f"{spec.name}: the family's spec: an input cannot be called {tensor.name!r}: the name is taken"
        )
