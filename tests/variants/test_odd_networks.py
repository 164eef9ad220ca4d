"""Recipes on networks of another shape than most: they do what they say, or say why they do not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.networks import digits
from variants.recipes.artifact import RecipeError
from variants.recipes.channel_pruning import ChannelPruning
from variants.recipes.low_rank import LowRank
from variants.recipes.magnitude_pruning import MagnitudePruning
from variants.recipes.quantization_aware import QuantizationAware
from variants.recipes.weight_clustering import WeightClustering
from variants.session import open_session
from variants.training.export import export_model
from variants.training.model import Model
from variants.training.recipe import Recipe
from variants.training.settings import FitSettings

NONE = FitSettings(epochs=0)

pytestmark = pytest.mark.usefixtures("one_thread")


class Tied(nn.Module):
    """Two layers of the same weights, as a decoder that is the encoder turned round has."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.answer = nn.Linear(64, 64), nn.Linear(64, 64), nn.Linear(64, 10)
        self.second.weight = self.first.weight

    def forward(self, images: Tensor) -> Tensor:
        answer: Tensor = self.answer(torch.relu(self.second(torch.relu(self.first(images.flatten(1))))))
        return answer


class ReadsWeights(nn.Module):
    """Its code multiplies with a layer's weights and never calls the layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.answer = nn.Linear(64, 64), nn.Linear(64, 10)

    def forward(self, images: Tensor) -> Tensor:
        answer: Tensor = self.answer(torch.relu(images.flatten(1) @ self.first.weight.T))
        return answer


class WeightNormed(nn.Module):
    """The weights of its first layer are computed from two others each time they are read."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.answer = nn.utils.parametrizations.weight_norm(nn.Linear(64, 64)), nn.Linear(64, 10)

    def forward(self, images: Tensor) -> Tensor:
        answer: Tensor = self.answer(torch.relu(self.first(images.flatten(1))))
        return answer


class Attending(nn.Module):
    """Its classifier takes the first of the two tensors that attention gives."""

    def __init__(self) -> None:
        super().__init__()
        self.attention, self.answer = nn.MultiheadAttention(8, 2, batch_first=True), nn.Linear(64, 10)

    def forward(self, images: Tensor) -> Tensor:
        tokens = images.squeeze(1)
        mixed, _ = self.attention(tokens, tokens, tokens, need_weights=False)
        answer: Tensor = self.answer(mixed.flatten(1))
        return answer


def model(kind: Callable[[], nn.Module]) -> Model:
    torch.manual_seed(0)
    return Model("odd", kind(), {"image": digits().train.inputs[0][:2]})


@pytest.mark.parametrize(
    ("recipe", "kind", "reason"),
    [
        (LowRank("budget", budget=0.6, fit=NONE), Tied, "the lowest ranks keep more than 60% of the parameters"),
        (LowRank("budget", budget=0.6, fit=NONE), ReadsWeights, "must call layers, not read their weights"),
        (LowRank(energy=0.3, fit=NONE), ReadsWeights, "must call layers, not read their weights"),
        (MagnitudePruning(0.5, NONE), WeightNormed, "the weights of 'first' are computed"),
        (WeightClustering(8, NONE), WeightNormed, "the weights of 'first' are computed"),
        (LowRank(energy=0.3, fit=NONE), WeightNormed, "the weights of 'first' are computed"),
        (QuantizationAware(NONE), WeightNormed, "the weights of 'first' are computed"),
        (ChannelPruning(0.5, fit=NONE), WeightNormed, "cannot be followed"),
    ],
)
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
def test_what_cannot_be_done_is_refused(recipe: Recipe, kind: Callable[[], nn.Module], reason: str) -> None:
    """A recipe that would do nothing, make the network larger or break it says so instead."""
    with pytest.raises(RecipeError, match=reason):
        recipe(model(kind), digits())


def test_what_attention_gives_is_rounded(tmp_path: Path) -> None:
    """Of several tensors the one that is taken is rounded, and the export answers as the network does."""
    made = QuantizationAware(NONE)(model(Attending), digits())
    images = digits().validation.inputs[0].numpy()
    given = open_session(export_model(made, tmp_path / "model.onnx").path).run({"image": images})["logits"]
    assert 1.0 == made.lineage[-1].measures["rounded_layers"]
    np.testing.assert_allclose(given, made.reference()({"image": images}), atol=1e-2)


def test_a_layer_of_zeros_is_clustered() -> None:
    """A layer whose weights are all zero stays so: its one centroid is zero."""
    odd = model(ReadsWeights)
    nn.init.zeros_(odd.module.get_parameter("answer.weight"))
    made = WeightClustering(8, NONE)(odd, digits())
    state = made.module.state_dict()
    assert (0, 8) == (int(state["answer.weight"].count_nonzero()), len(state["first.weight"].unique()))
