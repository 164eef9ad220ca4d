"""`digits`: scikit-learn's 8x8 handwritten digits, a family of small networks that is built in seconds.

For tests and for measuring the gateway's own overhead: a request costs microseconds of model time. It is also the
shortest example of a family spec.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from torch import nn

from variants.manifest import TensorPreparation, TensorSpec
from variants.preparation import Feeds
from variants.recipes.artifact import Artifact
from variants.recipes.export import export
from variants.recipes.rowwise_int8 import rowwise_int8
from variants.recipes.static_int8 import IMAGE_OPERATORS, static_int8
from variants.spec import BuildContext, BuildStage, Candidate, Dataset, FamilySpec, LabelledRows, split
from variants.training.cost import cost_of_training

INPUT = "image"
EPOCHS = 25
BATCH = 64


def load(context: BuildContext) -> Dataset:
    """Return the 1797 digits as 64 brightnesses from 0 to 16."""
    images, digits = load_digits(return_X_y=True)
    rows = LabelledRows({INPUT: images.astype(np.float32)}, digits.astype(np.int64))
    return split(rows, train=1000, validation=300, seed=context.spec.seed)


def networks() -> dict[str, nn.Module]:
    """Return the untrained networks, from float32 [n, 64] to logits [n, 10]."""
    return {
        "linear": nn.Linear(64, 10),
        "mlp": nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)),
        "wide": nn.Sequential(nn.Linear(64, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10)),
        "conv": nn.Sequential(
            nn.Unflatten(1, (1, 8, 8)),
            nn.Conv2d(1, 32, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(1024, 10),
        ),
    }


@contextmanager
def one_thread() -> Iterator[None]:
    """Keep torch to one thread: steps of microseconds lose more at the barriers than a second core gives."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def train(network: nn.Module, pixels: torch.Tensor, labels: torch.Tensor, seed: int) -> None:
    """Fit a network with AdamW under a one-cycle learning rate."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=0.05)
    steps = EPOCHS * -(-len(labels) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1e-2, total_steps=steps)
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(labels), generator=generator).split(BATCH):
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(pixels[rows]), labels[rows]).backward()
            optimizer.step()
            schedule.step()


def build(context: BuildContext, data: Dataset) -> Iterator[Candidate]:
    """Train the networks and yield each as fp32, and the two larger ones as int8 in the form that suits them."""
    torch.manual_seed(context.spec.seed)
    preparer = context.preparer()
    feeds = preparer.collate(preparer.prepare(data.train.inputs).values)
    pixels, labels = torch.from_numpy(feeds[INPUT]), torch.from_numpy(data.train.labels)
    trained = networks()
    costs = {}
    for done, (name, network) in enumerate(trained.items(), start=1):
        with one_thread(), cost_of_training(len(labels)) as costs[name]:
            train(network, pixels, labels, context.spec.seed)
        context.advance(done / len(trained))

    calibration = [{INPUT: feeds[INPUT][start : start + BATCH]} for start in range(0, 8 * BATCH, BATCH)]
    exports = {name: partial(_export, name, network, costs[name]) for name, network in trained.items()}
    for name, network in trained.items():
        yield Candidate(f"{name}-fp32", exports[name], reference=_reference(network))
    wide = partial(exports["wide"], context.scratch / "wide.onnx")
    conv = partial(exports["conv"], context.scratch / "conv.onnx")
    yield Candidate("wide-int8", lambda path: rowwise_int8(wide(), path), reference=_reference(trained["wide"]))
    yield Candidate(
        "conv-int8",
        lambda path: static_int8(conv(), path, calibration, operators=IMAGE_OPERATORS),
        reference=_reference(trained["conv"]),
    )


def _export(name: str, network: nn.Module, facts: Mapping[str, float], path: Path) -> Artifact:
    made = export(network, {INPUT: torch.zeros(2, 64)}, path, lineage=(f"{name}, trained on the digits",))
    return replace(made, facts=facts)


def _reference(network: nn.Module) -> Callable[[Feeds], NDArray[np.float32]]:
    def logits(feeds: Feeds) -> NDArray[np.float32]:
        with torch.inference_mode():
            answer: torch.Tensor = network(torch.from_numpy(feeds[INPUT]))
        return answer.numpy()

    return logits


FAMILY = FamilySpec(
    name="digits",
    description="Handwritten digits of 8x8 pixels: which digit is it?",
    labels=tuple("0123456789"),
    inputs=(TensorSpec(name=INPUT, datatype="FP32", shape=(-1, 64)),),
    preparation=TensorPreparation(),
    load=load,
    build=build,
    default_slo_s=0.05,
    seed=1,
    source="scikit-learn load_digits: Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI, 1998",
    licence="data: CC BY 4.0 (UCI); weights: made by this build",
    expected_s={
        BuildStage.DATA: 0.5,
        BuildStage.TRAIN: 3.0,
        BuildStage.VARIANTS: 1.0,
        BuildStage.EVALUATE: 0.5,
        BuildStage.PROFILE: 0.5,
        BuildStage.PUBLISH: 0.2,
    },
)
