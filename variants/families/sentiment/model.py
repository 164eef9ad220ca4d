"""MiniLM with a classifier after every layer: one network that can stop at any depth.

Early exits: Teerapittayanon et al., "BranchyNet", ICPR 2016; for BERT, Xin et al., "DeeBERT", ACL 2020. Exit k has run
k encoder layers; exit 0 is a bag of word embeddings.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

WIDTH = 384
HEADS = 12
INNER = 1536
LAYER_NORM_EPSILON = 1e-12
MASKED = -1e4
"""Added to the scores of padding: exp of it is exactly 0 in float32, so padding leaves no trace in a softmax."""


def mean_over_tokens(hidden: Tensor, mask: Tensor) -> Tensor:
    """Return the mean of hidden [n, t, d] over the tokens whose float mask [n, t, 1] is 1."""
    return (hidden * mask).sum(dim=1) / mask.sum(dim=1)


class EncoderLayer(nn.Module):
    """One BERT layer: self-attention and a feed-forward net, each with a residual and LayerNorm after it."""

    def __init__(self) -> None:
        super().__init__()
        self.query_key_value = nn.Linear(WIDTH, 3 * WIDTH)
        self.projection = nn.Linear(WIDTH, WIDTH)
        self.attention_norm = nn.LayerNorm(WIDTH, LAYER_NORM_EPSILON)
        self.widen = nn.Linear(WIDTH, INNER)
        self.narrow = nn.Linear(INNER, WIDTH)
        self.output_norm = nn.LayerNorm(WIDTH, LAYER_NORM_EPSILON)

    def forward(self, hidden: Tensor, attention_bias: Tensor) -> Tensor:
        """Map hidden float32 [n, t, 384] to the same shape; `attention_bias` [n, 1, 1, t] is 0 or `MASKED`."""
        rows, tokens, _ = hidden.shape
        heads = self.query_key_value(hidden).view(rows, tokens, 3, HEADS, WIDTH // HEADS)
        query, key, value = (heads[:, :, part].transpose(1, 2) for part in range(3))
        scores = query @ key.transpose(2, 3) * (WIDTH // HEADS) ** -0.5 + attention_bias
        mixed = (scores.softmax(dim=3) @ value).transpose(1, 2).reshape(rows, tokens, WIDTH)
        hidden = self.attention_norm(hidden + self.projection(mixed))
        widened = nn.functional.gelu(self.widen(hidden))
        normed: Tensor = self.output_norm(hidden + self.narrow(widened))
        return normed


class MultiExitEncoder(nn.Module):
    """Embeddings, `depth` encoder layers, and a linear classifier over the mean of the tokens at every exit."""

    def __init__(self, depth: int, vocabulary: int, max_tokens: int, labels: int = 2) -> None:
        super().__init__()
        self.words = nn.Embedding(vocabulary, WIDTH)
        self.positions = nn.Parameter(torch.zeros(max_tokens, WIDTH))
        self.embedding_norm = nn.LayerNorm(WIDTH, LAYER_NORM_EPSILON)
        self.layers = nn.ModuleList(EncoderLayer() for _ in range(depth))
        self.exits = nn.ModuleList(nn.Linear(WIDTH, labels) for _ in range(depth + 1))

    @property
    def depth(self) -> int:
        """How many encoder layers there are; exits are numbered from 0 to this."""
        return len(self.layers)

    def embedded(self, input_ids: Tensor) -> Tensor:
        """Return what the first layer sees of int64 [n, t]: float32 [n, t, 384]."""
        normed: Tensor = self.embedding_norm(self.words(input_ids) + self.positions[: input_ids.shape[1]])
        return normed

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, ...]:
        """Return hidden float32 [n, t, 384] and logits [n, labels] after each exit, in turn.

        `input_ids` and `attention_mask` are int64 [n, t].
        """
        mask = attention_mask.unsqueeze(2).float()
        attention_bias = ((1.0 - mask) * MASKED).transpose(1, 2).unsqueeze(1)
        states = [self.embedded(input_ids)]
        for layer in self.layers:
            states.append(layer(states[-1], attention_bias))
        answers: list[Tensor] = []
        for state, head in zip(states, self.exits, strict=True):
            answers += (state, head(mean_over_tokens(state, mask)))
        return tuple(answers)

    def parameters_to_exit(self, exit_number: int) -> int:
        """Return how many weights it takes to answer at an exit."""
        parts: list[nn.Module] = [self.words, self.embedding_norm, *self.layers[:exit_number], self.exits[exit_number]]
        return self.positions.numel() + sum(weight.numel() for part in parts for weight in part.parameters())


def from_pretrained(weights: Mapping[str, Tensor], depth: int, max_tokens: int) -> MultiExitEncoder:
    """Return a network with the embeddings and the first `depth` layers of a BERT checkpoint, and new classifiers."""
    words = weights["embeddings.word_embeddings.weight"]
    network = MultiExitEncoder(depth, len(words), max_tokens)
    state = {
        "words.weight": words,
        # All tokens are of type 0, so its embedding is the same addition everywhere.
        "positions": weights["embeddings.position_embeddings.weight"][:max_tokens]
        + weights["embeddings.token_type_embeddings.weight"][0],
        "embedding_norm.weight": weights["embeddings.LayerNorm.weight"],
        "embedding_norm.bias": weights["embeddings.LayerNorm.bias"],
    }
    for layer in range(depth):
        for kind in ("weight", "bias"):
            bert, ours = f"encoder.layer.{layer}", f"layers.{layer}"
            state |= {
                f"{ours}.query_key_value.{kind}": torch.cat(
                    [weights[f"{bert}.attention.self.{part}.{kind}"] for part in ("query", "key", "value")]
                ),
                f"{ours}.projection.{kind}": weights[f"{bert}.attention.output.dense.{kind}"],
                f"{ours}.attention_norm.{kind}": weights[f"{bert}.attention.output.LayerNorm.{kind}"],
                f"{ours}.widen.{kind}": weights[f"{bert}.intermediate.dense.{kind}"],
                f"{ours}.narrow.{kind}": weights[f"{bert}.output.dense.{kind}"],
                f"{ours}.output_norm.{kind}": weights[f"{bert}.output.LayerNorm.{kind}"],
            }
    missing = network.load_state_dict(state, strict=False)
    if missing.unexpected_keys or any(not name.startswith("exits.") for name in missing.missing_keys):
        raise ValueError(f"the checkpoint does not fit: {missing}")
    return network
