"""Latency profiles: measured seconds of every variant for every batch and size class, on one kind of machine.

Taken through the session, the collation and the decoding that serve, on real rows of the family.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Literal, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError, model_validator

from router.contract import Family, LatencyTable, VariantProfile
from variants.atomic import write_atomically
from variants.fingerprint import machine_fingerprint
from variants.manifest import PROFILES_FOLDER, FamilyManifest
from variants.preparation import LOGITS, Preparer, Row, open_preparation
from variants.revision import RepositoryError, RevisionFolder
from variants.session import Session, SessionOptions, open_session
from variants.timing import (
    FULL,
    QUICK,
    Cell,
    Progress,
    Work,
    elapsed_s,
    measure,
    quantiles,
    rows_for_class,
    running_s,
    usual_spread,
)

ProfileMode = Literal["quick", "full"]

_PLANS = {"quick": QUICK, "full": FULL}

Seconds = Annotated[float, Field(gt=0.0)]
Table = tuple[tuple[Seconds, ...], ...]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class VariantTable(_Frozen):
    """One variant: `median_s[c][i]`, `tail_s[c][i]` (95th percentile) for size class c and batch `batches[i]`.

    `samples[c][i]` counts the measurements behind them. `load_s` is how long the model takes to open, `memory_bytes`
    how much resident memory that took, at least the size of its file.
    """

    batches: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)]
    median_s: Annotated[Table, Field(min_length=1)]
    tail_s: Table
    samples: tuple[tuple[int, ...], ...]
    load_s: float
    memory_bytes: Annotated[int, Field(ge=0)]

    @model_validator(mode="after")
    def _is_rectangular(self) -> Self:
        if self.batches[0] != 1 or list(self.batches) != sorted(set(self.batches)):
            raise ValueError(f"batches: {list(self.batches)} do not ascend from 1")
        shapes = {tuple(len(row) for row in table) for table in (self.median_s, self.tail_s, self.samples)}
        if shapes != {(len(self.batches),) * len(self.median_s)}:
            raise ValueError("median_s, tail_s and samples must have one row a size class and one column a batch")
        return self


class FamilyProfile(_Frozen):
    """All that was measured of a revision's variants, by name, on machines of one fingerprint."""

    schema_version: Literal[1] = 1
    family: str
    revision: str
    fingerprint: str
    machine: str
    taken: AwareDatetime
    mode: ProfileMode
    threads: Annotated[int, Field(ge=1)]
    variants: dict[str, VariantTable]


def profile_family(
    folder: RevisionFolder,
    variants: Sequence[str] | None = None,
    mode: ProfileMode = "quick",
    progress: Progress | None = None,
    options: SessionOptions | None = None,
) -> FamilyProfile:
    """Measure variants of a revision, by default all; nothing is stored.

    Quick takes a few seconds, full up to some minutes. Raises `RepositoryError` where the samples or the tokenizer
    cannot be read, `ModelLoadError` where a model cannot be opened, `KeyError` where there is no such variant.
    """
    options = options or SessionOptions()
    manifest = folder.manifest
    names = tuple(variant.name for variant in manifest.variants) if variants is None else tuple(variants)
    preparer = open_preparation(folder)
    rows = _rows_by_class(folder, preparer)
    sessions = {name: open_session(folder.file(manifest.variant(name).model_file), options) for name in names}
    works = {name: _work(session, preparer, manifest.variant(name).temperature) for name, session in sessions.items()}
    plan = _PLANS[mode].up_to(manifest.max_batch)
    stopwatch = running_s if options.threads == 1 else elapsed_s
    measured = measure(works, rows, manifest.sizes, plan, progress or _silent, stopwatch)
    fingerprint = machine_fingerprint(options.threads)
    spreads = [usual_spread([s for cell, s in measured.items() if cell.batch == batch]) for batch in plan.batches]
    return FamilyProfile(
        family=manifest.name,
        revision=manifest.revision,
        fingerprint=fingerprint.digest,
        machine=fingerprint.description,
        taken=datetime.now(UTC),
        mode=mode,
        threads=options.threads,
        variants={
            name: _table(name, measured, len(manifest.sizes), plan.batches, spreads, session)
            for name, session in sessions.items()
        },
    )


def save_profile(folder: RevisionFolder, profile: FamilyProfile) -> None:
    """Store a profile with its revision, atomically, in place of an older one of the same fingerprint.

    Tables that the older one has of other variants are kept. Raises `RepositoryError` where it cannot be written.
    """
    older = _read(folder, profile.fingerprint)
    if older is not None and older.threads == profile.threads:
        profile = profile.model_copy(update={"variants": {**older.variants, **profile.variants}})
    path = folder.path / PROFILES_FOLDER / f"{profile.fingerprint}.json"
    try:
        path.parent.mkdir(exist_ok=True)
        write_atomically(path, profile.model_dump_json(indent=1).encode())
    except OSError as error:
        raise RepositoryError(f"{path}: cannot be written: {error.strerror}") from error


def load_profile(folder: RevisionFolder, threads: int = 1) -> FamilyProfile | None:
    """Return the stored profile of this machine; None where there is none, or one that is damaged or foreign."""
    return _read(folder, machine_fingerprint(threads).digest)


def to_router_family(manifest: FamilyManifest, profile: FamilyProfile, names: Sequence[str]) -> Family:
    """Return what the router needs of the named variants, cheapest first for a single row of the middle size class.

    Raises `KeyError` where the manifest or the profile lacks one.
    """
    middle = len(manifest.sizes) // 2
    ordered = sorted(names, key=lambda name: (profile.variants[name].median_s[middle][0], name))
    return Family(
        name=manifest.name,
        variants=tuple(_variant_profile(manifest, profile.variants[name], name) for name in ordered),
        sizes=manifest.sizes,
        max_batch=manifest.max_batch,
        revision=manifest.revision,
    )


def _variant_profile(manifest: FamilyManifest, table: VariantTable, name: str) -> VariantProfile:
    variant = manifest.variant(name)
    return VariantProfile(
        name=name,
        quality=variant.quality.value,
        latency=LatencyTable(table.batches, table.median_s, table.tail_s),
        memory_bytes=table.memory_bytes,
        batch_invariant=variant.invariance.invariant,
    )


def _read(folder: RevisionFolder, fingerprint: str) -> FamilyProfile | None:
    path = folder.path / PROFILES_FOLDER / f"{fingerprint}.json"
    try:
        profile = FamilyProfile.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None
    manifest = folder.manifest
    fits = all(len(table.median_s) == len(manifest.sizes) for table in profile.variants.values())
    of_this = (profile.family, profile.revision, profile.fingerprint) == (manifest.name, manifest.revision, fingerprint)
    return profile if fits and of_this else None


def _rows_by_class(folder: RevisionFolder, preparer: Preparer) -> list[list[Row]]:
    samples = folder.samples()
    sizes = folder.manifest.sizes
    rows = preparer.prepare({tensor.name: samples[tensor.name] for tensor in folder.manifest.inputs})
    if max(rows.sizes) == 1 and len(sizes) == 1:
        return [rows.values]
    return [rows_for_class(rows.values, sizes, size_class) for size_class in range(len(sizes))]


def _work(session: Session, preparer: Preparer, temperature: float) -> Work:
    def run(rows: Sequence[Row]) -> object:
        return preparer.decode(session.run(preparer.collate(rows))[LOGITS], temperature)

    return run


def _table(
    name: str,
    measured: Mapping[Cell, Sequence[float]],
    classes: int,
    batches: tuple[int, ...],
    spreads: Sequence[float],
    session: Session,
) -> VariantTable:
    cells = [[measured[Cell(name, size_class, batch)] for batch in batches] for size_class in range(classes)]
    columns = [quantiles(row, spreads) for row in cells]
    return VariantTable(
        batches=batches,
        median_s=tuple(tuple(medians) for medians, _ in columns),
        tail_s=tuple(tuple(tails) for _, tails in columns),
        samples=tuple(tuple(len(cell) for cell in row) for row in cells),
        load_s=session.load_s,
        memory_bytes=max(session.memory_bytes, session.path.stat().st_size),
    )


def _silent(fraction: float) -> None:
    return
