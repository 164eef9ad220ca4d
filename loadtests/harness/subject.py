"""What is tested: families with rows and SLOs, tenants, and the plans that are drawn from them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from loadtests.harness.cargo import MOST_BYTES, Cargo, Plan, Way
from loadtests.harness.rows import RowsError, Stock
from loadtests.harness.target import Served, Target
from loadtests.load import Load
from loadtests.traces import Seconds, TraceError
from loadtests.workload import SloMix, Workload


class Names(NamedTuple):
    """Names and the share of requests that each has; shares sum to 1."""

    names: tuple[str, ...]
    share: tuple[float, ...]

    @classmethod
    def parse(cls, texts: Sequence[str], flag: str) -> Self:
        """Read `a:0.7` or `a`, which weighs 1. Raises `TraceError` naming flag and part."""
        weights: dict[str, float] = {}
        for text in texts:
            name, _, weight = text.partition(":")
            try:
                value = float(weight or 1.0)
            except ValueError:
                value = math.nan
            if not name or name in weights or not (math.isfinite(value) and value > 0.0):
                raise TraceError(f"{flag}: expected names, each once, as NAME or NAME:WEIGHT, got {text[:60]!r}")
            weights[name] = value
        total = sum(weights.values())
        return cls(tuple(weights), tuple(weight / total for weight in weights.values()))


@dataclass(frozen=True, slots=True)
class Member:
    """One family of a test: what is served, its rows, its SLOs, its share of the requests, and a variant if pinned."""

    served: Served
    stock: Stock
    mix: SloMix
    share: float = 1.0
    variant: str = ""


@dataclass(frozen=True, slots=True)
class Subject:
    """Everything that a test may send. `tenants` is None where requests are nobody's.

    `label` int64 [m] has what is right for each message, by its number, as an index into its family's labels.
    """

    target: Target
    members: tuple[Member, ...]
    tenants: Names | None = None

    def __post_init__(self) -> None:
        size_bytes = sum(len(message.body) for member in self.members for message in member.stock.messages)
        if size_bytes > MOST_BYTES:
            raise RowsError(f"rows take {size_bytes / 1e6:.0f} MB, at most {MOST_BYTES / 1e6:.0f} MB are sent")

    @property
    def label(self) -> NDArray[np.int64]:
        """See the class."""
        return np.concatenate([member.stock.label for member in self.members])

    @property
    def labelled(self) -> bool:
        """Whether accuracy can be told."""
        return all(member.stock.labelled for member in self.members)

    def first_message(self, place: int) -> int:
        """The number of the first message of the member at that place."""
        return sum(len(member.stock.messages) for member in self.members[:place])

    def ways(self) -> tuple[Way, ...]:
        """Where requests may go: each member as it is asked for, in order, then each of its variants pinned."""
        asked = tuple(Way(member.served.family, member.variant) for member in self.members)
        pinned = (Way(member.served.family, variant) for member in self.members for variant in member.served.variants)
        return tuple(dict.fromkeys((*asked, *pinned)))

    def cargo(self) -> Cargo:
        """All messages and ways."""
        return Cargo(
            self.target.url,
            self.ways(),
            tuple(message for member in self.members for message in member.stock.messages),
            {member.served.family: member.stock.labels for member in self.members},
            self.tenants.names if self.tenants else (),
            self.target.headers,
            self.target.insecure,
        )

    def draw(self, load: Load, seed: int) -> Plan:
        """The plan of that seed; the mix of the load is left to the members. Raises `TraceError`."""
        rng = np.random.default_rng(seed)
        arrival_s, called = load.arrive(rng)
        return self.of(arrival_s, called, rng)

    def of(self, arrival_s: Seconds, called: str, rng: np.random.Generator) -> Plan:
        """A plan with these arrivals: each is a member's by its share, then has SLO, row and tenant.

        Raises `TraceError`. Of one family without tenants it is the very workload that `Load.draw` makes of that seed.
        """
        count = len(arrival_s)
        shares = [member.share for member in self.members]
        place = rng.choice(len(shares), size=count, p=shares) if len(shares) > 1 else np.zeros(count, np.int64)
        slo_s, sample = np.zeros(count), np.zeros(count, np.int64)
        for number, member in enumerate(self.members):
            mine = place == number
            if mine.any():
                drawn = Workload.draw(arrival_s[mine], member.mix, len(member.stock.messages), rng)
                slo_s[mine], sample[mine] = drawn.slo_s, drawn.sample + self.first_message(number)
        who = np.full(count, -1, np.int64)
        if self.tenants is not None:
            who = rng.choice(len(self.tenants.names), size=count, p=self.tenants.share)
        mixes = {member.mix.said for member in self.members}
        slos = f", SLO {mixes.pop()}" if len(mixes) == 1 else ""
        return Plan(Workload(arrival_s, slo_s, sample, called + slos), place.astype(np.int64), who)


def with_own(stocks: Mapping[str, tuple[Served, Stock]], shares: Names, mix: SloMix | None) -> tuple[Member, ...]:
    """Members with one mix for all, or each with its family's own SLO. Raises `TraceError` where that is not known."""
    members = []
    for name, share in zip(shares.names, shares.share, strict=True):
        served, stock = stocks[name]
        if mix is None and served.slo_s is None:
            raise TraceError(f"{name}: the gateway does not say which SLO the family has; give --slo-mix")
        own = mix or SloMix((served.slo_s or 0.0,), (1.0,))
        members.append(Member(served, stock, own, share))
    return tuple(members)
