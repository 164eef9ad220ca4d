"""One short fine-tune: of all exits together, or of one alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from variants.families.sentiment.model import MultiExitEncoder, mean_over_tokens
from variants.preparation import ATTENTION_MASK, INPUT_IDS, Preparer, Row
from variants.training.settings import computes_in_bfloat16

BATCH = 64
EXIT_RATE = 5e-3
WEIGHT_DECAY = 0.01
WARM_UP = 0.1
EXIT_ZERO_DECAY = 1e-4
BATCHES_SORTED_TOGETHER = 16
"""Rows are sorted by length within this many random batches, which halves the padding and keeps batches random."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long to train, and the largest learning rate of the encoder's layers."""

    epochs: int
    encoder_rate: float


def batches(sizes: Sequence[int], generator: torch.Generator) -> Iterator[torch.Tensor]:
    """Yield the row numbers of one epoch's batches: random, of like length within a batch, in random order."""
    order = torch.randperm(len(sizes), generator=generator)
    lengths = torch.tensor(sizes)
    groups: list[torch.Tensor] = []
    for pool in order.split(BATCH * BATCHES_SORTED_TOGETHER):
        groups += pool[lengths[pool].argsort()].split(BATCH)
    for group in torch.randperm(len(groups), generator=generator).tolist():
        yield groups[group]


def fine_tune(
    network: MultiExitEncoder,
    preparer: Preparer,
    rows: Sequence[Row],
    labels: NDArray[np.int64],
    schedule: Schedule,
    *,
    seed: int,
    advance: Callable[[float], None],
    exits: Sequence[int] | None = None,
) -> None:
    """Fit the layers to the mean cross-entropy over `exits`, by default all; the embeddings stay as they were."""
    exits = range(network.depth + 1) if exits is None else exits
    for part in (network.words, network.embedding_norm):
        part.requires_grad_(False)
    network.positions.requires_grad_(False)
    optimizer = torch.optim.AdamW(
        [
            {"params": network.layers.parameters(), "lr": schedule.encoder_rate},
            {"params": network.exits.parameters(), "lr": EXIT_RATE},
        ],
        weight_decay=WEIGHT_DECAY,
    )
    steps = schedule.epochs * -(-len(rows) // BATCH)
    rates = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        max_lr=[schedule.encoder_rate, EXIT_RATE],
        total_steps=steps + 1,
        pct_start=WARM_UP,
        anneal_strategy="linear",
    )
    generator = torch.Generator().manual_seed(seed)
    targets = torch.from_numpy(labels)
    sizes = [row.size for row in rows]
    network.train()
    done = 0
    for _ in range(schedule.epochs):
        for group in batches(sizes, generator):
            feeds = preparer.collate([rows[row] for row in group.tolist()])
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=computes_in_bfloat16()):
                answers = network(torch.from_numpy(feeds[INPUT_IDS]), torch.from_numpy(feeds[ATTENTION_MASK]))
            logits = [answers[2 * exit_number + 1].float() for exit_number in exits]
            losses = [nn.functional.cross_entropy(answer, targets[group]) for answer in logits]
            optimizer.zero_grad()
            torch.stack(losses).mean().backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            rates.step()
            done += 1
            advance(done / steps)
    network.eval()
    if 0 in exits:
        solve_exit_zero(network, preparer, rows, targets)


def solve_exit_zero(network: MultiExitEncoder, preparer: Preparer, rows: Sequence[Row], targets: torch.Tensor) -> None:
    """Fit exit 0 to the end: over frozen embeddings it is a logistic regression, and one epoch leaves it half done."""
    order = sorted(range(len(rows)), key=lambda row: rows[row].size)
    with torch.no_grad():
        features = torch.cat(
            [
                mean_over_tokens(
                    network.embedded(torch.from_numpy(feeds[INPUT_IDS])),
                    torch.from_numpy(feeds[ATTENTION_MASK]).unsqueeze(2).float(),
                )
                for start in range(0, len(order), BATCH)
                for feeds in [preparer.collate([rows[row] for row in order[start : start + BATCH]])]
            ]
        )
    head = network.exits[0]
    optimizer = torch.optim.LBFGS(head.parameters(), max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        fit = nn.functional.cross_entropy(head(features), targets[order])
        value: torch.Tensor = fit + EXIT_ZERO_DECAY * sum(weights.square().sum() for weights in head.parameters())
        value.backward()
        return value

    optimizer.step(loss)
