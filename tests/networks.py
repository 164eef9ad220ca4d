"""Networks and rows that are learnt in seconds, for tests of training: digits, and sentences of made-up words."""

from __future__ import annotations

from functools import cache

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from variants.training.model import Model
from variants.training.rows import Rows, TrainingData

IMAGE = "image"
WORDS = 40
WIDTH = 16
TOKENS = 10


class Residual(nn.Module):
    """Two convolutions with batch normalization around a skip connection."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.first_norm = nn.BatchNorm2d(channels)
        self.second = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.second_norm = nn.BatchNorm2d(channels)

    def forward(self, images: Tensor) -> Tensor:
        inner = torch.relu(self.first_norm(self.first(images)))
        return torch.relu(images + self.second_norm(self.second(inner)))


class Layer(nn.Module):
    """Self-attention of one head and a feed-forward net."""

    def __init__(self) -> None:
        super().__init__()
        self.query_key_value = nn.Linear(WIDTH, 3 * WIDTH)
        self.widen = nn.Linear(WIDTH, 2 * WIDTH)
        self.narrow = nn.Linear(2 * WIDTH, WIDTH)
        self.norm = nn.LayerNorm(WIDTH)

    def forward(self, hidden: Tensor, bias: Tensor) -> Tensor:
        query, key, value = self.query_key_value(hidden).chunk(3, dim=2)
        mixed = hidden + (query @ key.transpose(1, 2) / WIDTH**0.5 + bias).softmax(dim=2) @ value
        normed: Tensor = self.norm(mixed + self.narrow(nn.functional.gelu(self.widen(mixed))))
        return normed


class Encoder(nn.Module):
    """A transformer over token ids, with a classifier over the mean of the tokens."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, WIDTH)
        self.layers = nn.ModuleList(Layer() for _ in range(depth))
        self.final = nn.Identity()
        self.classifier = nn.Linear(WIDTH, 2)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        weights = mask.unsqueeze(2).float()
        bias = (1.0 - mask.unsqueeze(1).float()) * -1e4
        hidden = self.words(ids)
        for layer in self.layers:
            hidden = layer(hidden, bias)
        hidden = self.final(hidden)
        logits: Tensor = self.classifier((hidden * weights).sum(dim=1) / weights.sum(dim=1))
        return logits


@cache
def digits() -> TrainingData:
    """400 digits to learn from and 200 to choose by: float32 [n, 1, 8, 8] in [0, 1]."""
    pixels, labels = load_digits(return_X_y=True)
    images = torch.tensor(pixels, dtype=torch.float32).view(-1, 1, 8, 8) / 16
    targets = torch.tensor(labels, dtype=torch.int64)
    return TrainingData(Rows((images[:400],), targets[:400]), Rows((images[400:600],), targets[400:600]))


@cache
def sentences() -> TrainingData:
    """300 and 100 sentences of 4 to 10 tokens: 2, words, 3, padding 0; label 1 where more than half lie above 20."""

    def rows(count: int, seed: int) -> Rows:
        generator = torch.Generator().manual_seed(seed)
        ids = torch.randint(4, WORDS, (count, TOKENS), generator=generator)
        lengths = torch.randint(4, TOKENS + 1, (count, 1), generator=generator)
        places = torch.arange(TOKENS)
        mask = (places < lengths).long()
        ids = torch.where(places == lengths - 1, 3, ids) * mask
        ids[:, 0] = 2
        inner = (ids > 3).sum(dim=1)
        return Rows((ids, mask), (2 * (ids > 20).sum(dim=1) > inner).long(), mask=1)

    return TrainingData(rows(300, 0), rows(100, 1))


def convolutional(channels: int = 8) -> Model:
    """An untrained residual network for `digits()`, always with the same weights."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, channels, 3, padding=1),
        nn.BatchNorm2d(channels),
        nn.ReLU(),
        Residual(channels),
        nn.MaxPool2d(2),
        nn.Conv2d(channels, 2 * channels, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32 * channels, 32),
        nn.ReLU(),
        nn.Linear(32, 10),
    )
    return Model("residual", network, {IMAGE: digits().train.inputs[0][:2]})


def perceptron(hidden: int = 16) -> Model:
    """An untrained network of two linear layers for `digits()`, always with the same weights."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, hidden), nn.ReLU(), nn.Linear(hidden, 10))
    return Model("perceptron", network, {IMAGE: digits().train.inputs[0][:2]})


def encoder(depth: int = 2) -> Model:
    """An untrained transformer for `sentences()`, always with the same weights."""
    torch.manual_seed(0)
    ids, mask = (values[:2] for values in sentences().train.inputs)
    axes = {"input_ids": {1: "tokens"}, "attention_mask": {1: "tokens"}}
    return Model("encoder", Encoder(depth), {"input_ids": ids, "attention_mask": mask}, dynamic_axes=axes)
