"""Latency profiles as they lie on disk, and what the router needs of them."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Literal, Self

from pydantic import AwareDatetime, Field, ValidationError, model_validator

from router.family import Evidence, Family, LatencyTable, VariantProfile
from variants.atomic import write_atomically
from variants.fingerprint import machine_fingerprint
from variants.frozen import Frozen
from variants.manifest import PROFILES_FOLDER, FamilyManifest
from variants.measurements import ServingFootprint
from variants.revision import RepositoryError, RevisionFolder

ProfileMode = Literal["quick", "full"]

Seconds = Annotated[float, Field(gt=0.0)]
Table = tuple[tuple[Seconds, ...], ...]


class VariantTable(Frozen):
    """One variant or stage: `median_s[c][i]`, `tail_s[c][i]` (95th percentile) for size class c and batch `batches[i]`.

    `samples[c][i]` counts the measurements behind them. `p99_s[c][i]` is the 99th percentile, None where there are too
    few samples to know it; profiles of older versions have none. `load_s` is how long the model takes to open,
    `memory_bytes` how much resident memory it takes alone with one slot, at least the size of its file and what that
    shares (`variants.runtimes.table.copies_of`). `batch_bytes` is what the largest batch of the longest rows takes
    beside that while it runs; None of stages. `opening_bytes` is what opening the model takes for a moment beside what
    it keeps. Both are None where the machine does not tell, and in profiles of older versions.
    """

    batches: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)]
    median_s: Annotated[Table, Field(min_length=1)]
    tail_s: Table
    samples: tuple[tuple[int, ...], ...]
    p99_s: tuple[tuple[Seconds | None, ...], ...] | None = None
    load_s: float
    memory_bytes: Annotated[int, Field(ge=0)]
    batch_bytes: Annotated[int, Field(ge=0)] | None = None
    opening_bytes: Annotated[int, Field(ge=0)] | None = None

    @model_validator(mode="after")
    def _is_rectangular(self) -> Self:
        if self.batches[0] != 1 or list(self.batches) != sorted(set(self.batches)):
            raise ValueError(f"batches: {list(self.batches)} do not ascend from 1")
        tables = (self.median_s, self.tail_s, self.samples, *filter(None, (self.p99_s,)))
        shapes = {tuple(len(row) for row in table) for table in tables}
        if shapes != {(len(self.batches),) * len(self.median_s)}:
            raise ValueError("median_s, tail_s, samples and p99_s need one row a size class and one column a batch")
        return self


class ExecutorCell(Frozen):
    """One variant and batch: rows answered a second by all cores, one thread a batch against all threads a batch.

    `slots_rows_s` is measured with as many batches at a time as there are cores, `threads_rows_s` with one; both are
    medians over rounds, and `ratios` has the first over the second in each round.
    """

    variant: str
    batch: Annotated[int, Field(ge=1)]
    slots_rows_s: Seconds
    threads_rows_s: Seconds
    ratios: Annotated[tuple[Annotated[float, Field(gt=0.0)], ...], Field(min_length=1)]

    @property
    def ratio(self) -> float:
        """The median over the rounds, which a neighbour that was busy during one of them does not move."""
        return statistics.median(self.ratios)


class Executors(Frozen):
    """Whether the cores serve more rows as slots of one thread or as one slot of many threads, as measured."""

    cores: Annotated[int, Field(ge=2)]
    cells: Annotated[tuple[ExecutorCell, ...], Field(min_length=1)]

    @property
    def ratio(self) -> float:
        """Rows a second of slots over those of threads: the geometric mean over the cells."""
        return geometric_mean(cell.ratio for cell in self.cells)

    @property
    def spread(self) -> tuple[float, float]:
        """The least and the largest of the rounds' ratios, each a geometric mean over the cells."""
        rounds = [geometric_mean(ratios) for ratios in zip(*(cell.ratios for cell in self.cells), strict=True)]
        return min(rounds), max(rounds)

    @property
    def recommended_slots(self) -> int:
        """How many batches should run at a time: one only where that served more rows in every round."""
        return self.cores if self.spread[1] >= 1.0 else 1

    @property
    def recommended_threads(self) -> int:
        """How many threads should work on each of them."""
        return self.cores // self.recommended_slots


def geometric_mean(values: Iterable[float]) -> float:
    """Return the geometric mean of at least one positive number."""
    return math.exp(statistics.fmean(map(math.log, values)))


class FamilyProfile(Frozen):
    """All that was measured of a revision's variants and stages, by name, on machines of one fingerprint.

    `tokenizer_bytes` is what the tokenizer takes in memory; None where there is none, and in profiles of older
    versions.
    """

    schema_version: Literal[1] = 1
    family: str
    revision: str
    fingerprint: str
    machine: str
    taken: AwareDatetime
    mode: ProfileMode
    threads: Annotated[int, Field(ge=1)]
    variants: dict[str, VariantTable]
    stages: dict[str, VariantTable] = Field(default_factory=dict)
    executors: Executors | None = None
    footprints: dict[str, ServingFootprint] = Field(default_factory=dict)
    tokenizer_bytes: Annotated[int, Field(ge=0)] | None = None


def save_profile(folder: RevisionFolder, profile: FamilyProfile) -> None:
    """Store a profile with its revision, atomically, in place of an older one of the same fingerprint.

    What the older one has of other variants and stages, of executors and of footprints, is kept. Raises
    `RepositoryError` where it cannot be written.
    """
    older = _read(folder, profile.fingerprint)
    if older is not None and older.threads == profile.threads:
        kept = {
            "variants": older.variants | profile.variants,
            "stages": older.stages | profile.stages,
            "executors": profile.executors or older.executors,
            "footprints": older.footprints | profile.footprints,
            "tokenizer_bytes": older.tokenizer_bytes if profile.tokenizer_bytes is None else profile.tokenizer_bytes,
        }
        profile = profile.model_copy(update=kept)
    path = folder.path / PROFILES_FOLDER / f"{profile.fingerprint}.json"
    try:
        path.parent.mkdir(exist_ok=True)
        write_atomically(path, profile.model_dump_json(indent=1).encode())
    except OSError as error:
        raise RepositoryError(f"{path}: cannot be written: {error.strerror}") from error


def load_profile(folder: RevisionFolder, threads: int = 1) -> FamilyProfile | None:
    """Return the stored profile of this machine; None where there is none, or one that is damaged or foreign."""
    return _read(folder, machine_fingerprint(threads).digest)


def carry_profiles(old: RevisionFolder, new: RevisionFolder) -> None:
    """Have the profiles of a revision in one with the same variants, those of other machines too. Raises `OSError`."""
    for path in sorted((old.path / PROFILES_FOLDER).glob("*.json")):
        profile = _read(old, path.stem)
        if profile is not None:
            save_profile(new, profile.model_copy(update={"revision": new.manifest.revision}))


def to_router_family(
    manifest: FamilyManifest,
    profile: FamilyProfile,
    names: Sequence[str],
    *,
    staged: bool = False,
    evidence: Callable[[Sequence[str]], Evidence | None] | None = None,
    elsewhere: Mapping[str, FamilyProfile] | None = None,
) -> Family:
    """Return what the router needs of the named variants, cheapest first for a single row of the middle size class.

    With `staged`, a variant whose whole chain is profiled is its chain, and takes as long as its stages together.
    `evidence` is called with the names in the family's order (`variants.evidence.read_evidence`); without it the
    family has none. `elsewhere` has the profiles of further devices by their names. Raises `KeyError` where the
    manifest or a profile lacks a variant.
    """
    middle = len(manifest.sizes) // 2
    variants = [_variant_profile(manifest, profile, name, elsewhere or {}, staged=staged) for name in names]
    variants.sort(key=lambda variant: (variant.latency.median_s[middle][0], variant.name))
    return Family(
        name=manifest.name,
        variants=tuple(variants),
        sizes=manifest.sizes,
        max_batch=manifest.max_batch,
        revision=manifest.revision,
        evidence=evidence([variant.name for variant in variants]) if evidence is not None else None,
    )


def _variant_profile(
    manifest: FamilyManifest, profile: FamilyProfile, name: str, elsewhere: Mapping[str, FamilyProfile], *, staged: bool
) -> VariantProfile:
    variant = manifest.variant(name)
    whole = profile.variants[name]
    every = (profile, *elsewhere.values())
    chain = variant.stages if staged and all(one.stages.keys() >= set(variant.stages) for one in every) else ()
    tables = [profile.stages[stage] for stage in chain] or [whole]
    others = {d: [o.stages[stage] for stage in chain] or [o.variants[name]] for d, o in elsewhere.items()}
    return VariantProfile(
        name=name,
        quality=variant.quality.value,
        latency=_one_after_another(tables),
        stages=chain or ("whole",),
        memory_bytes=sum(table.memory_bytes for table in tables),
        elsewhere=tuple((device, _one_after_another(of_device)) for device, of_device in others.items()),
    )


def _one_after_another(tables: Sequence[VariantTable]) -> LatencyTable:
    """Return the summed seconds of at least one table, for the batches that all of them have.

    The tail is that of a batch whose stages are all slow at once.
    """
    shared = set(tables[0].batches).intersection(*(table.batches for table in tables))
    batches = tuple(sorted(shared))

    def summed(part: Callable[[VariantTable], Table]) -> Table:
        classes = range(len(part(tables[0])))
        return tuple(
            tuple(sum(part(table)[size_class][table.batches.index(batch)] for table in tables) for batch in batches)
            for size_class in classes
        )

    return LatencyTable(batches, summed(lambda table: table.median_s), summed(lambda table: table.tail_s))


def _read(folder: RevisionFolder, fingerprint: str) -> FamilyProfile | None:
    path = folder.path / PROFILES_FOLDER / f"{fingerprint}.json"
    try:
        profile = FamilyProfile.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None
    manifest = folder.manifest
    tables = (*profile.variants.values(), *profile.stages.values())
    fits = all(len(table.median_s) == len(manifest.sizes) for table in tables)
    of_this = (profile.family, profile.revision, profile.fingerprint) == (manifest.name, manifest.revision, fingerprint)
    return profile if fits and of_this else None
