"""What may be sent to a gateway, and the plan of one run: which of it, when. Both travel as bytes between processes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self

import msgpack
import numpy as np
from numpy.typing import NDArray

from loadtests import oip
from loadtests.workload import Workload

MOST_BYTES = 512 * 1024 * 1024
"""Messages are kept in the memory of each generator: more than that is refused."""


class Way(NamedTuple):
    """Where a request goes: to a family, or pinned to one of its variants (`variant` is not empty)."""

    family: str
    variant: str = ""

    @property
    def path(self) -> str:
        """The path of the request."""
        return oip.infer_path(self.family, self.variant or None)


class Message(NamedTuple):
    """One row as a request: the headers that belong to its body, and the body."""

    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Cargo:
    """Everything that plans may name, by number.

    `labels` has the names that each family may answer with. `headers` go with every request; they may hold secrets, so
    they are kept out of what is printed and written. `insecure` accepts any certificate.
    """

    url: str
    ways: tuple[Way, ...]
    messages: tuple[Message, ...]
    labels: Mapping[str, tuple[str, ...]]
    tenants: tuple[str, ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    insecure: bool = False

    def pack(self) -> bytes:
        """As bytes, for another process."""
        packed: bytes = msgpack.packb(
            [
                self.url,
                [tuple(way) for way in self.ways],
                [(dict(message.headers), message.body) for message in self.messages],
                {family: list(names) for family, names in self.labels.items()},
                list(self.tenants),
                dict(self.headers),
                self.insecure,
            ]
        )
        return packed

    @classmethod
    def unpack(cls, packed: bytes) -> Self:
        """What `pack` made."""
        url, ways, messages, labels, tenants, headers, insecure = msgpack.unpackb(packed)
        return cls(
            url,
            tuple(Way(*way) for way in ways),
            tuple(Message(*message) for message in messages),
            {family: tuple(names) for family, names in labels.items()},
            tuple(tenants),
            headers,
            insecure,
        )


@dataclass(frozen=True, slots=True)
class Plan:
    """One run: a workload whose samples are numbers of messages, with the way and the tenant of each request.

    `way` and `tenant` int64 [n] index those of the cargo; a tenant of -1 is nobody's.
    """

    workload: Workload
    way: NDArray[np.int64]
    tenant: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.workload)

    def of(self, which: slice | NDArray[np.bool_]) -> Self:
        """Some of the requests, in their order. Raises `TraceError` where that is none."""
        return type(self)(self.workload.of(which), self.way[which], self.tenant[which])

    def pack(self) -> dict[str, Any]:
        """As values that msgpack takes."""
        work = self.workload
        arrays = {"arrival_s": work.arrival_s, "slo_s": work.slo_s, "sample": work.sample}
        arrays |= {"way": self.way, "tenant": self.tenant}
        return {name: values.tobytes() for name, values in arrays.items()}

    @classmethod
    def unpack(cls, packed: Mapping[str, bytes]) -> Self:
        """What `pack` made."""
        floats = {name: np.frombuffer(packed[name], np.float64) for name in ("arrival_s", "slo_s")}
        whole = {name: np.frombuffer(packed[name], np.int64) for name in ("sample", "way", "tenant")}
        return cls(Workload(floats["arrival_s"], floats["slo_s"], whole["sample"]), whole["way"], whole["tenant"])


def share(parts: int, part: int) -> slice:
    """Which requests of a plan one of several generators sends: every so-manieth, so that the sum is the whole."""
    return slice(part, None, parts)
