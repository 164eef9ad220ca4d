"""What arrives: when, with which SLO, and which labelled row it carries. Simulator and generator take the same."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from loadtests.traces import Seconds, TraceError


@dataclass(frozen=True, slots=True)
class SloMix:
    """SLOs in seconds, ascending, and the share of requests that has each; shares sum to 1."""

    slo_s: tuple[float, ...]
    share: tuple[float, ...]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `50:0.7,200:0.3` (milliseconds:weight; a lone `50` weighs 1). Raises `TraceError` naming the part."""
        weights: dict[float, float] = {}
        for part in text.split(","):
            slo_ms, _, weight = part.partition(":")
            try:
                pair = float(slo_ms), float(weight or 1.0)
            except ValueError:
                raise TraceError(f"slo-mix: expected milliseconds:weight, got {part[:40]!r}") from None
            if not all(math.isfinite(number) and number > 0.0 for number in pair):
                raise TraceError(f"slo-mix: expected positive numbers, got {part[:40]!r}")
            weights[pair[0]] = weights.get(pair[0], 0.0) + pair[1]
        total = sum(weights.values())
        ordered = sorted(weights)
        return cls(tuple(slo / 1000.0 for slo in ordered), tuple(weights[slo] / total for slo in ordered))

    @property
    def said(self) -> str:
        """For people: `50 ms`, or `50 ms (70 %), 200 ms (30 %)`."""
        if len(self.slo_s) == 1:
            return f"{self.slo_s[0] * 1000.0:g} ms"
        pairs = zip(self.slo_s, self.share, strict=True)
        return ", ".join(f"{slo_s * 1000.0:g} ms ({share * 100.0:.3g} %)" for slo_s, share in pairs)

    def __str__(self) -> str:
        """As `parse` reads it."""
        pairs = zip(self.slo_s, self.share, strict=True)
        return ",".join(f"{slo_s * 1000.0:g}:{share:.2g}" for slo_s, share in pairs)


@dataclass(frozen=True, slots=True)
class Workload:
    """Requests of one row each, in order of arrival: three arrays of one length n and what they are called.

    `arrival_s` float64 [n] ascends from 0, `slo_s` float64 [n] is positive, `sample` int64 [n] indexes the family's
    labelled samples. Raises `TraceError` where the arrays do not fit each other.
    """

    arrival_s: Seconds
    slo_s: Seconds
    sample: NDArray[np.int64]
    description: str = ""

    def __post_init__(self) -> None:
        if not self.arrival_s.shape == self.slo_s.shape == self.sample.shape or self.arrival_s.ndim != 1:
            shapes = (self.arrival_s.shape, self.slo_s.shape, self.sample.shape)
            raise TraceError(f"workload: arrival_s, slo_s and sample must be arrays of one length, got {shapes}")
        if len(self.arrival_s) == 0:
            raise TraceError("workload: has no arrivals; raise the rate or the duration")
        if not np.isfinite(self.arrival_s).all() or self.arrival_s[0] < 0.0 or (np.diff(self.arrival_s) < 0.0).any():
            raise TraceError("workload: arrival_s must ascend from 0 or later")
        if not (np.isfinite(self.slo_s) & (self.slo_s > 0.0)).all() or (self.sample < 0).any():
            raise TraceError("workload: slo_s must be positive and sample at least 0")

    def __len__(self) -> int:
        return len(self.arrival_s)

    @property
    def duration_s(self) -> float:
        """Seconds until the last arrival."""
        return float(self.arrival_s[-1])

    @classmethod
    def draw(
        cls, arrival_s: Seconds, mix: SloMix, samples: int, rng: np.random.Generator, description: str = ""
    ) -> Self:
        """Give every arrival an SLO from the mix and one of `samples` rows, independently."""
        count = len(arrival_s)
        slo_s = rng.choice(np.array(mix.slo_s), size=count, p=np.array(mix.share))
        return cls(arrival_s, slo_s, rng.integers(0, samples, size=count), description)

    def of(self, which: slice | NDArray[np.bool_]) -> Self:
        """Some of the requests, in their order. Raises `TraceError` where that is none."""
        return type(self)(self.arrival_s[which], self.slo_s[which], self.sample[which], self.description)

    def save(self, path: Path) -> None:
        """Write as .npz, to be run elsewhere or again."""
        with path.open("wb") as stream:
            np.savez_compressed(
                stream,
                arrival_s=self.arrival_s,
                slo_s=self.slo_s,
                sample=self.sample,
                description=np.array(self.description),
            )

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote. Raises `TraceError` naming the file."""
        try:
            with np.load(path, allow_pickle=False) as archive:
                arrays: dict[str, NDArray[Any]] = {name: archive[name] for name in _required(archive.files)}
                return cls(
                    arrays["arrival_s"].astype(np.float64),
                    arrays["slo_s"].astype(np.float64),
                    arrays["sample"].astype(np.int64),
                    str(arrays["description"]),
                )
        except TraceError as error:
            raise TraceError(f"{path}: {error}") from None
        except Exception as error:  # a damaged archive raises anything from zipfile, zlib or numpy
            raise TraceError(f"{path}: cannot be read as a workload: {' '.join(str(error).split())[:200]}") from error


def _required(found: Iterable[str]) -> tuple[str, ...]:
    names = ("arrival_s", "slo_s", "sample", "description")
    if missing := set(names) - set(found):
        raise TraceError(f"has no array {min(missing)!r}")
    return names
