"""Measuring latency profiles: seconds of every variant and stage for every batch and size class, on this machine.

Taken through the sessions, the collation and the decoding that serve, on real rows of the family.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial

from variants.fingerprint import machine_fingerprint
from variants.manifest import FamilyManifest, ModelFile
from variants.preparation import LOGITS, Preparer, Row, open_preparation
from variants.profiled_memory import batch_bytes, growth_bytes, opening_bytes, tokenizer_bytes
from variants.profiles import (
    FamilyProfile,
    ProfileMode,
    VariantTable,
    load_profile,
    save_profile,
    to_router_family,
)
from variants.revision import RevisionFolder
from variants.runtimes.defaults import unusable
from variants.runtimes.table import RUNTIMES
from variants.session import Session, SessionOptions, open_file
from variants.stages import State, collate_states, cut_states, run_stages
from variants.timing import (
    FULL,
    QUICK,
    Cell,
    Noting,
    Progress,
    Work,
    elapsed_s,
    measure,
    percentile_99,
    quantiles,
    rows_for_class,
    running_s,
    unnoted,
    usual_spread,
)

__all__ = [
    "FamilyProfile",
    "ProfileMode",
    "VariantTable",
    "load_profile",
    "profile_family",
    "save_profile",
    "to_router_family",
]

_PLANS = {"quick": QUICK, "full": FULL}
_STAGE = "stage/"
"""Before a stage's name in its cells; no variant's name holds a slash."""

_Carried = tuple[Sequence[Row], Sequence[State]]
"""The rows of a batch, and the state of each of them."""


def profile_family(
    folder: RevisionFolder,
    variants: Sequence[str] | None = None,
    mode: ProfileMode = "quick",
    progress: Progress | None = None,
    options: SessionOptions | None = None,
    noting: Noting = unnoted,
) -> FamilyProfile:
    """Measure variants of a revision, by default all that can be opened here, and the stages of their chains.

    Nothing is stored. `noting` is entered with the name of a variant while it, or a stage of its chain, opens or runs.
    Quick takes a few seconds, full up to some minutes. Raises `RepositoryError` where the samples or the tokenizer
    cannot be read, `ModelLoadError` where a model cannot be opened, `KeyError` where there is no such variant.
    """
    # Where there are several slots, OpenVINO computes on threads of its own, whose time nobody could read. What the
    # slots do to each other is observed while serving.
    options = replace(options or SessionOptions(), slots=1)
    manifest = folder.manifest
    if variants is None:
        missing = unusable(manifest)
        variants = [variant.name for variant in manifest.variants if variant.name not in missing]
    names = tuple(variants)
    preparer = open_preparation(folder)
    rows = rows_by_class(folder, preparer)
    chains = longest_chains(manifest.variant(name).stages for name in names)
    files = {name: manifest.variant(name).model for name in names}
    stage_files = {s.name: s.model for s in manifest.stages if any(s.name in chain for chain in chains)}
    plan = _PLANS[mode].up_to(manifest.max_batch)
    wholes: dict[str, Session] = {}
    works: dict[str, Work] = {}
    grown: dict[str, int] = {}
    batches: dict[str, int | None] = {}
    openings: dict[str, int | None] = {}
    for name, file in files.items():
        with noting(name):
            openings[name] = opening_bytes(partial(open_file, folder, file, options), folder.size_bytes(file.path))
            wholes[name] = open_file(folder, file, options)
            works[name] = batch_work(wholes[name], preparer, _temperature(manifest, name))
            batches[name] = batch_bytes(works[name], rows[-1], manifest.max_batch)
            if RUNTIMES[file.runtime].grows:
                grown[name] = growth_bytes(works[name], rows, plan.batches)
    # The first variant stands for those that share a stage: without it the next one would.
    of_stage = {stage: name for name in reversed(names) for stage in manifest.variant(name).stages}
    stages: dict[str, Session] = {}
    for name, file in stage_files.items():
        with noting(of_stage[name]):
            opening = opening_bytes(partial(open_file, folder, file, options), folder.size_bytes(file.path))
            openings[_STAGE + name] = opening
            stages[name] = open_file(folder, file, options)
    noting_of = {_STAGE + stage: name for stage, name in of_stage.items()}
    growing = {name for name, file in files.items() if RUNTIMES[file.runtime].grows}
    growing |= {_STAGE + name for name, file in stage_files.items() if RUNTIMES[file.runtime].grows}
    paths: list[Mapping[str, Work]] = [{name: work} for name, work in works.items()]
    paths += [_chain_works({name: stages[name] for name in chain}, preparer) for chain in chains]
    stopwatch = running_s if options.threads == 1 else elapsed_s
    measured = measure(
        paths,
        rows,
        manifest.sizes,
        plan,
        progress or _silent,
        stopwatch,
        noting=lambda work: noting(noting_of.get(work, work)),
        prepares=growing,
    )
    fingerprint = machine_fingerprint(options.threads)
    spreads = [usual_spread([s for cell, s in measured.items() if cell.batch == batch]) for batch in plan.batches]

    def table(cells_of: str, session: Session, file: ModelFile) -> VariantTable:
        memory_bytes = max(session.memory_bytes + grown.get(cells_of, 0), folder.size_bytes(file.path))
        table = _table(cells_of, measured, len(manifest.sizes), plan.batches, spreads, session.load_s, memory_bytes)
        more = {"batch_bytes": batches.get(cells_of), "opening_bytes": openings[cells_of]}
        return table.model_copy(update=more)

    return FamilyProfile(
        family=manifest.name,
        revision=manifest.revision,
        fingerprint=fingerprint.digest,
        machine=fingerprint.description,
        taken=datetime.now(UTC),
        mode=mode,
        threads=options.threads,
        variants={name: table(name, session, files[name]) for name, session in wholes.items()},
        stages={name: table(_STAGE + name, session, stage_files[name]) for name, session in stages.items()},
        tokenizer_bytes=tokenizer_bytes(folder),
    )


def longest_chains(chains: Iterable[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Return the chains that are not the beginning of another one: running those runs every stage."""
    distinct = sorted(set(chains), key=lambda chain: (-len(chain), chain))
    kept: list[tuple[str, ...]] = []
    for chain in distinct:
        if not any(longer[: len(chain)] == chain for longer in kept):
            kept.append(chain)
    return [chain for chain in kept if chain]


def rows_by_class(folder: RevisionFolder, preparer: Preparer) -> list[list[Row]]:
    """Return rows to measure on for each size class, made from the revision's samples. Raises `RepositoryError`."""
    samples = folder.samples()
    sizes = folder.manifest.sizes
    rows = preparer.prepare({tensor.name: samples[tensor.name] for tensor in folder.manifest.inputs})
    if max(rows.sizes) == 1 and len(sizes) == 1:
        return [rows.values]
    return [rows_for_class(rows.values, sizes, size_class) for size_class in range(len(sizes))]


def batch_work(session: Session, preparer: Preparer, temperature: float) -> Work:
    """Return what answers a batch of rows with a whole graph as serving does."""

    def run(rows: Sequence[Row]) -> object:
        return preparer.decode(session.run(preparer.collate(rows))[LOGITS], temperature)

    return run


def _chain_works(chain: Mapping[str, Session], preparer: Preparer) -> dict[str, Work]:
    """Return the work of each stage, which takes what the one before it gives; a stage's answer is decoded, too."""

    def first(stage: Session) -> Work:
        def run(rows: Sequence[Row]) -> _Carried:
            return _carried(stage, preparer, rows, preparer.collate(rows))

        return run

    def later(stage: Session) -> Work:
        def run(carried: _Carried) -> _Carried:
            rows, states = carried
            return _carried(stage, preparer, rows, collate_states(stage, states))

        return run

    return {
        _STAGE + name: later(stage) if number else first(stage) for number, (name, stage) in enumerate(chain.items())
    }


def _carried(stage: Session, preparer: Preparer, rows: Sequence[Row], feeds: Mapping[str, State]) -> _Carried:
    logits, state = run_stages([stage], dict(feeds))
    preparer.decode(logits, 1.0)
    return rows, () if state is None else cut_states(stage, state, [len(row) for row in rows])


def _temperature(manifest: FamilyManifest, variant: str) -> float:
    return manifest.variant(variant).temperature


def _table(
    cells_of: str,
    measured: Mapping[Cell, Sequence[float]],
    classes: int,
    batches: tuple[int, ...],
    spreads: Sequence[float],
    load_s: float,
    memory_bytes: int,
) -> VariantTable:
    cells = [[measured[Cell(cells_of, size_class, batch)] for batch in batches] for size_class in range(classes)]
    columns = [quantiles(row, spreads) for row in cells]
    return VariantTable(
        batches=batches,
        median_s=tuple(tuple(medians) for medians, _ in columns),
        tail_s=tuple(tuple(tails) for _, tails in columns),
        samples=tuple(tuple(len(cell) for cell in row) for row in cells),
        p99_s=tuple(tuple(map(percentile_99, row, tails)) for row, (_, tails) in zip(cells, columns, strict=True)),
        load_s=load_s,
        memory_bytes=memory_bytes,
    )


def _silent(fraction: float) -> None:
    return
