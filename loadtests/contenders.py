"""The systems that the overhead benchmark measures: all answer the same rows with the same model file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import orjson

from loadtests import oip, servers
from loadtests.closedloop import GeneratorError
from loadtests.fetch import fetch
from loadtests.samples import Samples

CHECKED_ROWS = 16
YARDSTICK = "bare"


@dataclass(frozen=True, slots=True)
class Contender:
    """One way of serving: where to post which body, and how to read the label's index from the answer."""

    name: str
    server: servers.Server
    path: str
    body: Callable[[int], bytes]
    label: Callable[[bytes], int]

    def ask(self, row: int) -> tuple[int, str]:
        """The label that it gives a sample, and the variant that it says answered."""
        answer = fetch(self.server.url + self.path, self.body(row), oip.JSON_HEADERS, timeout_s=30.0)
        if answer.status != 200:
            raise GeneratorError(f"{self.name} answers {answer.status}: {answer.body[:200]!r}")
        return self.label(answer.body), answer.headers.get(oip.VARIANT_HEADER, "")

    def answers(self) -> Counter[str]:
        """How many rows each variant has answered since the start; empty where the server keeps no such count."""
        answer = fetch(f"{self.server.url}{self.path.partition('/infer')[0].partition('/versions/')[0]}/stats")
        models = orjson.loads(answer.body)["model_stats"] if answer.status == 200 else []
        return Counter({model["version"]: model["inference_count"] for model in models})


def contenders(stack: ExitStack, models: Path, samples: Samples, cores: Sequence[int]) -> tuple[list[Contender], str]:
    """Start all servers; also returns the variant that the gateway chooses when idle, which the peers serve too."""
    index = {label: number for number, label in enumerate(samples.labels)}
    family = samples.family

    def start(command: servers.Command) -> servers.Server:
        server = stack.enter_context(servers.running(command, cores))
        stack.callback(server.thaw)
        return server

    def oip_body(row: int) -> bytes:
        return oip.infer_body(samples, row, outputs=())

    def oip_label(answer: bytes) -> int:
        return oip.label_of(answer, index)

    def native_body(row: int) -> bytes:
        (rows,) = samples.inputs.values()
        return orjson.dumps({"rows": rows[row : row + 1].tolist()})

    def native_label(answer: bytes) -> int:
        (probabilities,) = orjson.loads(answer)
        return max(range(len(probabilities)), key=probabilities.__getitem__)

    gateway = start(servers.gateway(models))
    routed = Contender("gateway", gateway, oip.infer_path(family), oip_body, oip_label)
    _, variant = routed.ask(0)
    bare = start(servers.bare(models, family, variant))
    batchable = start(servers.bento_batchable(models, family, variant))
    return [
        Contender(YARDSTICK, bare, oip.infer_path(family), oip_body, oip_label),
        routed,
        Contender("gateway, pinned", gateway, oip.infer_path(family, variant), oip_body, oip_label),
        Contender("bentoml batchable", batchable, "/predict", native_body, native_label),
    ], variant


def check_answers(systems: Sequence[Contender], samples: Samples, variant: str) -> None:
    """Every system gives the known answers. Raises `GeneratorError` naming the one that does not."""
    for row in range(min(CHECKED_ROWS, len(samples))):
        expected = int(samples.predicted[variant][row])
        for system in systems:
            label, _ = system.ask(row)
            if label != expected:
                raise GeneratorError(f"{system.name} answers {label} for sample {row}, {variant} answers {expected}")
