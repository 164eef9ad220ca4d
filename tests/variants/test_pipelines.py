"""Recipes of all kinds one after another, as a family strings them together."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.networks import convolutional, digits
from variants.recipes.artifact import Artifact
from variants.recipes.channel_pruning import ChannelPruning
from variants.recipes.distillation import Distillation
from variants.recipes.low_rank import LowRank
from variants.recipes.magnitude_pruning import MagnitudePruning
from variants.recipes.quantization_aware import QuantizationAware
from variants.recipes.static_int8 import static_int8
from variants.recipes.supervised import Supervised
from variants.recipes.weight_clustering import WeightClustering
from variants.session import open_session
from variants.training.export import export_model
from variants.training.model import Model, accuracy, logits_of
from variants.training.recipe import Pipeline, Run
from variants.training.settings import FitSettings

QUICK = FitSettings(epochs=1, batch=50, rate=1e-3)


@pytest.fixture(scope="module")
def teacher() -> Model:
    return Supervised(FitSettings(epochs=6, batch=50, rate=3e-3))(convolutional(), digits())


def shrinking(teacher: Model) -> Pipeline:
    """Half the channels, then thin factors, then int8, with the large network as a teacher in between."""
    return (
        ChannelPruning(0.5, fit=QUICK)
        >> LowRank("budget", budget=0.7, fit=QUICK)
        >> Distillation(teacher, fit=replace(QUICK, epochs=3))
        >> QuantizationAware(QUICK)
    )


def test_structural_recipes_follow_one_another(teacher: Model, tmp_path: Path) -> None:
    """Each works on what the one before left; the int8 file is a small part of the original's and still answers."""
    made = shrinking(teacher)(teacher, digits(), Run(seed=1))
    assert ["training", "channel pruning", "low rank", "distillation", "quantization-aware training"] == [
        step.recipe for step in made.lineage
    ]
    sizes = [step.parameters for step in made.lineage]
    assert sizes[0] > sizes[1] > sizes[2]
    whole, small = export_model(teacher, tmp_path / "whole.onnx"), export_model(made, tmp_path / "small.onnx")
    assert small.path.stat().st_size < 0.3 * whole.path.stat().st_size
    images = digits().validation.inputs[0].numpy()
    answers = open_session(small.path).run({"image": images})["logits"].argmax(axis=1)
    assert np.mean(answers == digits().validation.labels.numpy()) > 0.5
    assert accuracy(made.module, digits().validation) > 0.5


class _InterruptedError(Exception):
    """Stands for Ctrl-C."""


@pytest.mark.parametrize("share", [0.4, 0.9])
def test_changed_graphs_survive_an_interruption(teacher: Model, tmp_path: Path, share: float) -> None:
    """Pruned, factorized and quantized networks come back from disk: the end is that of an undisturbed run."""
    expected = shrinking(teacher)(teacher, digits(), Run(seed=1))

    def interrupt(done: float) -> None:
        if done > share:
            raise _InterruptedError

    with pytest.raises(_InterruptedError):
        shrinking(teacher)(teacher, digits(), Run(seed=1, progress=interrupt, checkpoints=tmp_path / "kept"))
    again: list[float] = []
    run = Run(seed=1, progress=again.append, checkpoints=tmp_path / "kept")
    actual = shrinking(teacher)(teacher, digits(), run)
    assert min(again) > share - 0.25
    assert expected.history == actual.history
    rows = digits().validation
    assert torch.equal(logits_of(expected.module, rows), logits_of(actual.module, rows))


def test_a_sparse_network_may_be_clustered_and_stays_sparse(teacher: Model) -> None:
    """Pruning, then clustering, as in Deep Compression: both show in the last step."""
    made = (MagnitudePruning(0.6, QUICK) >> WeightClustering(8, QUICK))(teacher, digits())
    weights = torch.cat([weight.flatten() for weight in made.module.parameters() if weight.dim() > 1])
    assert float((weights == 0).float().mean()) >= 0.599


def test_facts_go_with_the_file_into_recipes_on_graphs(teacher: Model, tmp_path: Path) -> None:
    """What training cost is known of the int8 file that a graph recipe makes of the export."""
    exported = export_model(teacher, tmp_path / "fp32.onnx")
    rows = [{"image": digits().train.inputs[0][:50].numpy()}]
    made: Artifact = static_int8(exported, tmp_path / "int8.onnx", rows, operators=("Conv", "Gemm"))
    assert made.facts == teacher.facts
    assert made.lineage == (*teacher.history, "static int8")
