"""Whether memory suffices for what would be served, by what files, profiles and settings say: found without serving."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import ceil

import psutil

from service.finding import Finding, Verdict
from service.footprint import OWN
from service.log_words import NO_ROOM
from service.memory import budget_bytes, first_of, named
from service.model_room import MOST_RESERVED
from service.model_sizes import ModelSizes
from service.processes.footprint import lack_under_a_budget, reserve_bytes
from service.settings import Settings
from variants.manifest import VariantManifest
from variants.pieces import most_batch_bytes
from variants.profiles import load_profile
from variants.repository import RevisionFolder
from variants.runtimes.defaults import loaded_by_default
from variants.runtimes.table import lack_of
from variants.shared_sizes import loaded_bytes

_SPARE_MEMORY_BYTES = 512 * 1024**2
"""Python, BentoML and onnxruntime before the first model, with room to spare."""
_EMPTY_BYTES = {"threads": 145 * 10**6, "processes": 177 * 10**6}
"""What serves takes that has no model, by isolation, as measured with 3 families."""

_GROWTH_BYTES = 7 * 10**6
"""What comes with the first models of 3 families beside them, as measured: code of libraries, evidence, tables of the
policy."""
_STEP_BYTES = 10 * 10**6
"""What a budget is said to need is a multiple of this."""


def memory_finding(settings: Settings, folders: Sequence[RevisionFolder]) -> Finding:
    """What is available or allowed, and whether that suffices for these revisions."""
    needed_bytes = sum(_needed_bytes(folder, settings) for folder in folders)
    if settings.memory_budget is not None:
        return _of_budget(settings, settings.memory_budget, needed_bytes, folders)
    free_bytes = psutil.virtual_memory().available
    text = f"{free_bytes / 1e9:.1f} GB available, {needed_bytes / 1e6:.0f} MB of models would be loaded"
    if free_bytes < needed_bytes + _SPARE_MEMORY_BYTES:
        return Finding("memory", Verdict.BROKEN, f"{text}: too little; load fewer variants (families.NAME.load)")
    return Finding("memory", Verdict.FINE, text)


def _of_budget(settings: Settings, budget: str, needed_bytes: int, folders: Sequence[RevisionFolder]) -> Finding:
    """What the budget leaves; what models take is at least their files."""
    allowed_bytes, free_bytes = budget_bytes(budget), psutil.virtual_memory().available
    empty_bytes = _EMPTY_BYTES[settings.isolation]
    reserve_bytes = _reserve_bytes(settings, folders)
    kept_bytes = min(reserve_bytes, int(MOST_RESERVED * allowed_bytes))
    room_bytes = max(0, allowed_bytes - empty_bytes - kept_bytes)
    text = (
        f"{free_bytes / 1e9:.1f} GB available, memory_budget {budget} is {allowed_bytes / 1e6:.0f} MB, of which some "
        f"{empty_bytes / 1e6:.0f} MB go without any model and {kept_bytes / 1e6:.0f} MB are kept for batches"
    )
    sizes = {folder.manifest.name: _least_bytes(folder, settings) for folder in folders}
    lacking = {name: least for name, least in sizes.items() if least > room_bytes}
    # What is kept grows with the budget up to that share of it.
    most = empty_bytes + max(sizes.values(), default=0)
    least_bytes = min(most + reserve_bytes, most / (1.0 - MOST_RESERVED))
    raise_it = f"raise it to {_STEP_BYTES * ceil((least_bytes + _GROWTH_BYTES) / _STEP_BYTES) / 1e6:.0f}MB or more"
    if lacking:
        pinned = [name for name in lacking if name in settings.pinned]
        verdict = Verdict.BROKEN if pinned or len(lacking) == len(sizes) else Verdict.NOTE
        of_these = f"; pinned of these: {named(pinned)}" if pinned else ""
        return Finding("memory", verdict, f"{text}: {NO_ROOM} of {first_of(lacking)}{of_these}; {raise_it}")
    if allowed_bytes < least_bytes + _GROWTH_BYTES:
        grows = f"what comes with the first models takes {_GROWTH_BYTES / 1e6:.0f} MB more"
        return Finding("memory", Verdict.NOTE, f"{text}: {grows}; {raise_it}")
    if free_bytes < min(allowed_bytes, needed_bytes + _SPARE_MEMORY_BYTES):
        return Finding("memory", Verdict.NOTE, f"{text}: less is available than the budget lets the process take")
    return Finding("memory", Verdict.FINE, text)


def _reserve_bytes(settings: Settings, folders: Sequence[RevisionFolder]) -> int:
    batches = [most_batch_bytes(folder.manifest, load_profile(folder, settings.threads)) for folder in folders]
    reserve = reserve_bytes if settings.isolation == "processes" else OWN.reserve_bytes
    return reserve(settings.slot_count, max(batches, default=0))


def _least_bytes(folder: RevisionFolder, settings: Settings) -> int:
    """What a family takes with its smallest variant, on all devices, while that is opened."""
    sizes = ModelSizes(folder, folder.manifest.name)
    slots = Counter(slot.device for slot in settings.places)
    profiles = {device: load_profile(folder, threads) for device, threads in settings.widths.items()}
    variants = chosen(folder, settings)
    sizes.expect_all([(variant.name, variant.model) for variant in variants], profiles, slots)
    keys = [sizes.keys([variant.model]) for variant in variants]
    found = {sum(sizes.bytes[key] for key in one): max(sizes.opening.get(key, 0) for key in one) for one in keys}
    # The smallest by what it keeps, as it is chosen when it is loaded.
    return sum(min(found.items(), default=(0, 0)))


def _needed_bytes(folder: RevisionFolder, settings: Settings) -> int:
    """On each device once, or in `processes` once in each slot of several threads; lookup tables once."""
    slots = Counter(slot.device for slot in settings.places)
    alone = settings.isolation == "processes"
    times = sum(slots[device] if alone and threads > 1 else 1 for device, threads in settings.widths.items())
    return loaded_bytes(folder.manifest, [variant.name for variant in chosen(folder, settings)], times)


def chosen(folder: RevisionFolder, settings: Settings) -> Sequence[VariantManifest]:
    """The variants of a revision that would be served and can be; of the others `lack_here` has the cause."""
    wanted = settings.load_of(folder.manifest.name)
    if wanted is None:
        variants: Sequence[VariantManifest] = loaded_by_default(folder.manifest)
    else:
        variants = [variant for variant in folder.manifest.variants if variant.name in wanted]
    return [variant for variant in variants if not lack_here(variant, settings)]


def lack_here(variant: VariantManifest, settings: Settings) -> str:
    """Why a variant cannot be served here with these settings, in one line; empty where it can."""
    alone = settings.isolation == "processes" and settings.memory_budget is not None
    return lack_of(variant.runtime) or (lack_under_a_budget(variant) if alone else "")
