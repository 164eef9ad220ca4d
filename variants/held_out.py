"""The held-out rows of a family, prepared: what its variants are measured on."""

from __future__ import annotations

from variants.assessment import HeldOut
from variants.preparation import InputError, Preparer, Row
from variants.spec import BuildError, Dataset, FamilySpec, LabelledRows


def held_out(spec: FamilySpec, data: Dataset, preparer: Preparer) -> HeldOut:
    """Prepare the validation and test parts. Raises `BuildError` naming the part and the row that cannot be."""
    return HeldOut(
        validation=_prepared(spec, "validation", data.validation, preparer),
        validation_labels=data.validation.labels,
        test=_prepared(spec, "test", data.test, preparer),
        test_labels=data.test.labels,
        samples=spec.samples,
        size=spec.sizes[len(spec.sizes) // 2],
        labelled=spec.labelled,
    )


def _prepared(spec: FamilySpec, part: str, rows: LabelledRows, preparer: Preparer) -> list[Row]:
    try:
        return preparer.prepare(rows.inputs).values
    except InputError as error:
        raise BuildError(f"{spec.name}: the {part} part of the data: {error}") from error
