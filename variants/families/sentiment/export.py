"""The trained network as ONNX: one traced graph with all exits, from which whole graphs and stages are cut."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from variants.families.sentiment.model import MultiExitEncoder
from variants.preparation import ATTENTION_MASK, INPUT_IDS, LOGITS, Feeds
from variants.recipes.artifact import Artifact
from variants.recipes.cut import cut
from variants.recipes.export import export

JOINTLY = "joint fine-tune of all exits"
ALONE = "fine-tune of the last exit alone"


def hidden_after(exit_number: int) -> str:
    """Return the name of the tokens' state at an exit, which one stage gives and the next one takes."""
    return f"hidden_{exit_number}"


def logits_of(exit_number: int) -> str:
    """Return the name, in the graph with all exits, of an exit's logits."""
    return f"{LOGITS}_{exit_number}"


def export_all_exits(network: MultiExitEncoder, path: Path, trained: str = JOINTLY) -> Artifact:
    """Write the network as one fp32 graph: `input_ids`, `attention_mask` to every exit's hidden state and logits.

    `trained` is the step of its lineage that says how.
    """
    # A batch with padding, so that the trace takes no shortcut for a mask of ones.
    example = {
        INPUT_IDS: torch.tensor([[1, 2, 3], [1, 2, 0]]),
        ATTENTION_MASK: torch.tensor([[1, 1, 1], [1, 1, 0]]),
    }
    tokens = {1: "tokens"}
    exits = range(network.depth + 1)
    return export(
        network,
        example,
        path,
        lineage=("all-MiniLM-L6-v2", f"first {network.depth} layers", trained),
        outputs=[name for exit_number in exits for name in (hidden_after(exit_number), logits_of(exit_number))],
        dynamic_axes=dict.fromkeys((INPUT_IDS, ATTENTION_MASK, *map(hidden_after, exits)), tokens),
    )


class AllExits:
    """The graph with all exits in one precision; `make` writes it when the first cut asks for it."""

    def __init__(self, precision: str, network: MultiExitEncoder, make: Callable[[], Artifact]) -> None:
        self._precision = precision
        self._network = network
        self._make = make

    @cached_property
    def artifact(self) -> Artifact:
        """The graph's file and lineage."""
        return self._make()

    @cached_property
    def _model(self) -> onnx.ModelProto:
        return onnx.load(self.artifact.path)

    def stages(self, exit_number: int) -> tuple[str, ...]:
        """Return the names of the stages from the text to an exit."""
        return tuple(f"{self._precision}-{stage}" for stage in range(exit_number + 1))

    def whole(self, exit_number: int, path: Path) -> Artifact:
        """Write the graph from the text to one exit's logits."""
        texts = {INPUT_IDS: INPUT_IDS, ATTENTION_MASK: ATTENTION_MASK}
        cut(self._model, path, inputs=texts, outputs={logits_of(exit_number): LOGITS})
        return replace(
            self.artifact,
            path=path,
            lineage=(*self.artifact.lineage, f"cut at exit {exit_number}"),
            parameters=self._network.parameters_to_exit(exit_number),
        )

    def stage(self, number: int, path: Path) -> None:
        """Write what lies between an exit and the next: stage 0 starts from the text, the last leaves no state."""
        start = INPUT_IDS if number == 0 else hidden_after(number - 1)
        outputs = {logits_of(number): LOGITS}
        if number < self._network.depth:
            outputs[hidden_after(number)] = hidden_after(number)
        cut(self._model, path, inputs={start: start, ATTENTION_MASK: ATTENTION_MASK}, outputs=outputs)


def reference_logits(network: MultiExitEncoder, exit_number: int) -> Callable[[Feeds], NDArray[np.float32]]:
    """Return the original's answer at an exit, for the parity check."""

    def logits(feeds: Feeds) -> NDArray[np.float32]:
        with torch.inference_mode():
            answers = network(torch.from_numpy(feeds[INPUT_IDS]), torch.from_numpy(feeds[ATTENTION_MASK]))
        exits: torch.Tensor = answers[2 * exit_number + 1]
        return exits.numpy()

    return logits
