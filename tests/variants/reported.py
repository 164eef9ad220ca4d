"""A family of two exits as reports are made of it: timed, with answers that are known."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from variants.manifest import FamilyManifest
from variants.measurements import ServingFootprint
from variants.profiles import FamilyProfile, VariantTable
from variants.report.cascades import CascadeCurve, cascade_curve
from variants.repository import RevisionFolder

FOOTPRINT = ServingFootprint(
    loaded_bytes=2_000_000,
    peak_bytes=3_000_000,
    process_peak_bytes=90_000_000,
    largest_batch=4,
    load_s=0.05,
    cpu_s_alone=0.002,
    cpu_s_batched=0.001,
    batch=4,
)


def timed(folder: RevisionFolder, **row_s: float) -> FamilyProfile:
    """A profile in which a row of each variant or stage takes so long, larger batches as long as their rows."""

    def table(name: str) -> VariantTable:
        medians = tuple(row_s[name] * batch for batch in (1, 4))
        return VariantTable(
            batches=(1, 4),
            median_s=(medians,),
            tail_s=(tuple(2 * seconds for seconds in medians),),
            samples=((60, 60),),
            p99_s=((None, None),),
            load_s=0.01,
            memory_bytes=1,
        )

    manifest = folder.manifest
    return FamilyProfile(
        family=manifest.name,
        revision=manifest.revision,
        fingerprint="0" * 12,
        machine="a machine",
        taken=datetime(2026, 1, 1, tzinfo=UTC),
        mode="quick",
        threads=1,
        variants={variant.name: table(variant.name) for variant in manifest.variants},
        stages={stage.name: table(stage.name) for stage in manifest.stages},
        footprints={variant.name: FOOTPRINT for variant in manifest.variants},
    )


def chain_profile(folder: RevisionFolder) -> FamilyProfile:
    return timed(folder, small=0.001, large=0.004, first=0.0011, second=0.0032)


def with_manifest(folder: RevisionFolder, **changes: object) -> RevisionFolder:
    fields = {**folder.manifest.model_dump(), **changes}
    return RevisionFolder(folder.path, FamilyManifest.model_validate(fields))


def known_samples(folder: RevisionFolder, rows: int = 200) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
    """Give the kept samples answers: the better variant is right, the quick one where it is sure enough."""
    random = np.random.default_rng(5)
    label = random.integers(0, 2, rows)
    confidence = random.uniform(0.5, 1.0, rows).astype(np.float32)
    right = random.uniform(size=rows) < confidence
    np.savez(folder.path / "samples.npz", x=np.zeros((rows, 4), np.float32), label=label)
    for name, predicted in (("small", np.where(right, label, 1 - label)), ("large", label)):
        path = folder.path / name / "calibration.npz"
        with np.load(path) as arrays:
            kept = {key: arrays[key] for key in ("label", "predicted", "confidence")}
        np.savez(path, **kept, sample_predicted=predicted, sample_confidence=confidence)
    return right, confidence


def curve_of(folder: RevisionFolder) -> CascadeCurve:
    curve = cascade_curve(folder, chain_profile(folder), ["small", "large"])
    assert curve is not None
    return curve
