"""What may answer: families, their variants, and what is known of these.

Times are seconds; sizes are bytes; qualities are fractions in [0, 1].
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from router.words import WhenCold


@dataclass(frozen=True, slots=True)
class LatencyTable:
    """Measured seconds of one variant: `median_s[c][i]` and `tail_s[c][i]` for size class c and batch `batches[i]`.

    `batches` ascends and starts at 1. `tail_s` is the 95th percentile.
    """

    batches: tuple[int, ...]
    median_s: tuple[tuple[float, ...], ...]
    tail_s: tuple[tuple[float, ...], ...]


@dataclass(frozen=True, slots=True)
class VariantProfile:
    """What the router knows of a variant. `stages` is its path; a whole graph is a path of one stage.

    `quality` is what it is believed to be worth now: what was measured less `lost`, see `router.agreement.corrected`.
    `latency` is that of the slots, or, where there are several devices, of the first of them; `elsewhere` has those of
    the others, by the name of the device.
    """

    name: str
    quality: float
    latency: LatencyTable
    stages: tuple[str, ...] = ("whole",)
    memory_bytes: int = 0
    lost: float = 0.0
    elsewhere: tuple[tuple[str, LatencyTable], ...] = ()

    def on(self, device: str) -> LatencyTable:
        """Its seconds on a device; on one that nothing is known of, those of the first."""
        return next((table for name, table in self.elsewhere if name == device), self.latency)

    @property
    def measured(self) -> float:
        """The quality that was measured when the variant was built."""
        return self.quality + self.lost


class Share(NamedTuple):
    """What a family or tenant may count on where the machine is crowded: see `router.fairness`.

    A weight (above 0) against the others, and a guaranteed share of the machine's time in [0, 1].
    """

    weight: float = 1.0
    guaranteed: float = 0.0


EVEN = Share()
"""The share of who has no other."""


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """What every variant of a family answered on the same n held-out labelled rows: the ground that cascades stand on.

    `correct` bool [k, n] and `confidence` float32 [k, n] (calibrated, of the answered label), variants in the family's
    order; `predicted` int64 [k, n] has the answered labels where they are known. Raises `ValueError` where the shapes
    differ.
    """

    correct: NDArray[np.bool_]
    confidence: NDArray[np.float32]
    predicted: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        if self.predicted is not None and self.predicted.shape != self.correct.shape:
            raise ValueError(f"evidence: labels {self.predicted.shape}, expected {self.correct.shape}")
        if self.correct.ndim != 2 or self.correct.shape != self.confidence.shape:
            raise ValueError(f"evidence: shapes {self.correct.shape} and {self.confidence.shape}, expected two [k, n]")


@dataclass(frozen=True, slots=True)
class Family:
    """One revision of a family: its variants, cheapest first by measured batch-1 seconds.

    `sizes[c]` is the largest row of size class c (tokens; 1 for tensor families). `max_batch` bounds the items of one
    dispatch. `loaded` has the indices of the variants in memory, ascending, by default all; a family without any is
    cold. Those that are `quarantined` answer nobody, loaded or not. `rungs` holds the indices of the variants worth
    choosing: each better than all cheaper ones; the others answer only who pins them. `sound` is the same without
    those in quarantine, `ladder` of those of them that are loaded. Without `evidence` a family has no cascades.
    `share` is what the family may count on beside others. Raises `ValueError` where a family has no variants or two of
    one name, evidence of another number of variants, or an index in `loaded` or `quarantined` that is none.
    """

    name: str
    variants: tuple[VariantProfile, ...]
    sizes: tuple[int, ...] = (1,)
    max_batch: int = 32
    revision: str = "1"
    evidence: Evidence | None = field(default=None, compare=False)
    loaded: tuple[int, ...] | None = None
    when_cold: WhenCold = WhenCold.WAIT
    share: Share = EVEN
    quarantined: tuple[int, ...] = ()
    rungs: tuple[int, ...] = field(init=False)
    sound: tuple[int, ...] = field(init=False)
    ladder: tuple[int, ...] = field(init=False)
    _first_stages: tuple[tuple[int, ...], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        names = [variant.name for variant in self.variants]
        if not names:
            raise ValueError(f"family {self.name}: no variants")
        if len(set(names)) != len(names):
            raise ValueError(f"family {self.name}: two variants share a name in {names}")
        if self.evidence is not None and len(self.evidence.correct) != len(names):
            raise ValueError(f"family {self.name}: evidence of {len(self.evidence.correct)} of {len(names)} variants")
        everything = range(len(names))
        loaded = tuple(everything) if self.loaded is None else tuple(sorted(set(self.loaded)))
        quarantined = tuple(sorted(set(self.quarantined)))
        for what, indices in (("loaded", loaded), ("quarantined", quarantined)):
            if indices and not 0 <= indices[0] <= indices[-1] < len(names):
                raise ValueError(f"family {self.name}: {what} {indices}, but there are {len(names)} variants")
        object.__setattr__(self, "loaded", loaded)
        object.__setattr__(self, "quarantined", quarantined)
        object.__setattr__(self, "rungs", self._worth_choosing(everything))
        object.__setattr__(self, "sound", self._worth_choosing(v for v in everything if v not in quarantined))
        object.__setattr__(self, "ladder", self._worth_choosing(v for v in loaded if v not in quarantined))
        object.__setattr__(self, "_first_stages", _first_stages(tuple([variant.stages for variant in self.variants])))

    def _worth_choosing(self, indices: Iterable[int]) -> tuple[int, ...]:
        ladder: list[int] = []
        for index in indices:
            if not ladder or self.variants[index].quality > self.variants[ladder[-1]].quality:
                ladder.append(index)
        return tuple(ladder)

    @property
    def devices(self) -> tuple[str, ...]:
        """The devices besides the first one that its variants have latencies of their own on."""
        return tuple(dict.fromkeys(name for variant in self.variants for name, _ in variant.elsewhere))

    def quickest_s(self, variant: int | None = None, rows: int = 1, slots: int = 1) -> float:
        """No less than that, by what was measured, so many rows take by the quickest variant, or by one.

        Nothing else runs then: rows of the smallest size class, on the device that is quickest with them, in batches
        that so many `slots` share evenly, of the size that makes rows cheapest.
        """
        asked = self.variants if variant is None else (self.variants[variant],)
        tables = [table for one in asked for table in (one.latency, *(other for _, other in one.elsewhere))]
        alone_s = min(table.median_s[0][0] for table in tables)
        row_s = min(s / size for table in tables for s, size in zip(table.median_s[0], table.batches, strict=True))
        return max(alone_s, row_s * rows / slots)

    def on(self, device: str) -> Family:
        """The same family as it is on that device alone."""
        variants = tuple([replace(one, latency=one.on(device), elsewhere=()) for one in self.variants])
        return replace(self, variants=variants)

    def with_loaded(self, loaded: Iterable[int]) -> Family:
        """The same family with these variants loaded, and no others."""
        return replace(self, loaded=tuple(loaded))

    def with_quarantined(self, quarantined: Iterable[int]) -> Family:
        """The same family with these variants in quarantine, and no others."""
        return replace(self, quarantined=tuple(quarantined))

    def without(self, variant: str) -> Family:
        """The same family as seen by a row that this variant is not to answer."""
        index = self.index(variant)
        return self if index is None or index in self.quarantined else self.with_quarantined((*self.quarantined, index))

    def answers(self, variant: str) -> bool:
        """Whether the variant of that name is one of the family's, and can answer now."""
        index = self.index(variant)
        return index is not None and self.is_loaded(index)

    def is_loaded(self, variant: int) -> bool:
        """Whether the variant of that index can answer now."""
        return self.loaded is not None and variant in self.loaded and variant not in self.quarantined

    def index(self, variant: str) -> int | None:
        """Index of the variant of that name, `None` where the family has none."""
        for index, candidate in enumerate(self.variants):
            if candidate.name == variant:
                return index
        return None

    def first_stage(self, at: int, variant: int) -> int:
        """The stage from which `variant` goes on from an answer of variant `at` (-1: none); 0 where it starts anew.

        It goes on where the path of `at` is the beginning of its own: exits of one network.
        """
        return 0 if at < 0 else self._first_stages[at][variant]

    def start(self, at: int, variant: int) -> int:
        """`at` where `variant` goes on from its answer, -1 where it starts anew: what `LatencyModel` is asked with."""
        return at if at >= 0 and self._first_stages[at][variant] else -1

    def lowest_rung(self, min_quality: float) -> int | None:
        """Index of the cheapest variant on the ladder of at least that quality, `None` where none reaches it."""
        for index in self.ladder:
            if self.variants[index].quality >= min_quality:
                return index
        return None


@lru_cache(maxsize=1024)
def _first_stages(paths: tuple[tuple[str, ...], ...]) -> tuple[tuple[int, ...], ...]:
    """`Family.first_stage` of each path after each: asked some thirty times a decision, and the same for all loads."""
    return tuple(
        [tuple([len(at) if len(at) < len(one) and one[: len(at)] == at else 0 for one in paths]) for at in paths]
    )
