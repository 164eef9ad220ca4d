from __future__ import annotations

from functools import cache

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.networks import convolutional, digits, perceptron
from variants.recipes.artifact import RecipeError
from variants.recipes.low_rank import (
    LowRank,
    cheapest_savings,
    energy_rank,
    even_rank,
    factorized,
    rank_that_saves,
    saved_parameters,
)
from variants.recipes.magnitude_pruning import MagnitudePruning
from variants.recipes.supervised import Supervised
from variants.recipes.weight_clustering import NearestCentroid, WeightClustering, indexed_bytes
from variants.training.layers import weight_layers
from variants.training.model import Model, accuracy, count_parameters
from variants.training.settings import FitSettings

QUICK = FitSettings(epochs=2, batch=50, rate=1e-3)
NONE = FitSettings(epochs=0)


@cache
def trained() -> Model:
    return Supervised(FitSettings(epochs=6, batch=50, rate=3e-3))(convolutional(), digits())


def low_rank_linear(rank: int) -> nn.Linear:
    torch.manual_seed(0)
    layer = nn.Linear(24, 16)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(16, rank) @ torch.randn(rank, 24))
    return layer


@pytest.mark.parametrize(
    "layer",
    [
        nn.Linear(12, 9),
        nn.Linear(12, 9, bias=False),
        nn.Conv2d(6, 8, 3, stride=2, padding=1),
        nn.Conv2d(6, 8, 1, bias=False),
        nn.Conv2d(6, 8, (3, 1), dilation=2, padding_mode="reflect", padding=1),
    ],
    ids=str,
)
def test_all_ranks_together_are_the_layer(layer: nn.Linear | nn.Conv2d) -> None:
    """With full rank the two factors give what the layer gives; with a lower one the best there is of that rank."""
    inputs = torch.randn(4, 12) if isinstance(layer, nn.Linear) else torch.randn(4, 6, 10, 10)
    whole = factorized(layer, min(layer.weight.flatten(1).shape))
    torch.testing.assert_close(whole(inputs), layer(inputs), rtol=1e-4, atol=1e-5)
    first, second = factorized(layer, 3).children()
    assert isinstance(first, type(layer))
    assert isinstance(second, type(layer))
    product = second.weight.flatten(1) @ first.weight.flatten(1)
    values = torch.linalg.svdvals(layer.weight.detach().flatten(1))
    error = (product - layer.weight.flatten(1)).norm()
    torch.testing.assert_close(error, values[3:].norm(), rtol=1e-4, atol=1e-5)


@given(outputs=st.integers(1, 40), inputs=st.integers(1, 40), rank=st.integers(1, 40))
def test_savings_are_counted(outputs: int, inputs: int, rank: int) -> None:
    """What is said to be saved is the difference in weights, is positive below the even rank, and tells the rank."""
    layer = nn.Linear(inputs, outputs, bias=False)
    saved = saved_parameters(layer, rank)
    assert saved == outputs * inputs - rank * outputs - rank * inputs
    assert (saved > 0) == (rank < even_rank(layer))
    assert rank_that_saves(layer, saved) == rank


@given(values=st.lists(st.floats(0.01, 100.0), min_size=1, max_size=20), energy=st.floats(0.01, 1.0))
def test_the_rank_holds_the_energy_and_no_lower_one_does(values: list[float], energy: float) -> None:
    """The share of squared singular values up to the rank is enough, that of one rank less is not."""
    squares = torch.tensor(sorted(values, reverse=True), dtype=torch.float64).square()
    rank = energy_rank(squares.sqrt(), energy)
    assert 1 <= rank <= len(values)
    assert float(squares[:rank].sum() / squares.sum()) >= energy - 1e-9
    assert rank == 1 or float(squares[: rank - 1].sum() / squares.sum()) < energy + 1e-9


def test_a_matrix_of_low_rank_is_found_out() -> None:
    """Of a layer whose matrix has rank 3, all but 3 singular directions go, and the answers stay."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 24), low_rank_linear(3))
    model = Model("low", network, {"image": digits().train.inputs[0][:2]})
    made = LowRank(energy=0.999999, fit=NONE)(model, digits())
    assert made.lineage[-1].measures["rank.2"] == 3.0
    assert made.parameters == model.parameters - (16 * 24 - 3 * 40)
    images = digits().validation.inputs[0]
    torch.testing.assert_close(made.module(images), network(images), rtol=1e-3, atol=1e-3)


def test_a_budget_is_kept_by_what_costs_least() -> None:
    """The network has at most the share of weights, chosen by measurement, and still answers better than chance."""
    made = LowRank("budget", budget=0.5, fit=QUICK)(trained(), digits())
    assert made.parameters <= 0.5 * trained().parameters
    assert made.lineage[-1].measures["parameters_kept"] == made.parameters / trained().parameters
    assert accuracy(made.module, digits().validation) > 0.5


SAVINGS = st.lists(
    st.tuples(st.integers(1, 100), st.floats(-0.1, 5.0)), min_size=1, max_size=4, unique_by=lambda option: option[0]
).map(sorted)


@given(options=st.dictionaries(st.sampled_from("abc"), SAVINGS, max_size=3), wanted=st.integers(1, 200))
def test_savings_suffice_where_they_can(options: dict[str, list[tuple[int, float]]], wanted: int) -> None:
    """The chosen savings are among the options and suffice, unless all options together do not."""
    chosen = cheapest_savings(options, wanted)
    most = sum(choices[-1][0] for choices in options.values())
    if most < wanted:
        assert chosen is None
    else:
        assert chosen is not None
        assert sum(chosen.values()) >= wanted
        assert all(saving in [option[0] for option in options[layer]] for layer, saving in chosen.items())


def test_the_cheaper_layer_is_factorized() -> None:
    """Of two layers that save the same, the one that raises the loss less is chosen."""
    assert cheapest_savings({"dear": [(10, 2.0)], "cheap": [(10, 0.1)]}, 10) == {"cheap": 10}


@pytest.mark.parametrize(
    ("recipe", "reason"),
    [
        (LowRank(energy=1.0, fit=NONE), "no layer gets smaller"),
        (LowRank("budget", budget=0.001, fit=NONE), "keep more than 0% of the parameters"),
    ],
)
def test_networks_that_cannot_be_factorized_are_refused(recipe: LowRank, reason: str) -> None:
    """Full energy, or a budget that no ranks keep, is one line."""
    with pytest.raises(RecipeError, match=reason):
        recipe(perceptron(), digits())


@pytest.mark.parametrize("fit", [QUICK, NONE], ids=["while training", "at once"])
def test_clustered_layers_have_few_distinct_weights(fit: FitSettings) -> None:
    """No layer has more distinct weights than clusters, as plain weights of the same shape; the network still works."""
    made = WeightClustering(8, fit)(trained(), digits())
    for path, layer in weight_layers(made.module).items():
        assert len(layer.weight.unique()) <= 8
        assert layer.weight.shape == weight_layers(trained().module)[path].weight.shape
    assert count_parameters(made.module) == trained().parameters
    assert [type(part) for part in made.module.modules()] == [type(part) for part in trained().module.modules()]
    assert made.lineage[-1].measures["index_bytes"] < 4 * trained().parameters / 8
    assert accuracy(made.module, digits().validation) > 0.5


def test_clustering_keeps_pruned_weights_at_zero() -> None:
    """After pruning, zero is one more weight of each layer, and what was zero stays so while training."""
    pruned = MagnitudePruning(0.6, NONE)(trained(), digits())
    made = WeightClustering(8, QUICK)(pruned, digits())
    for before, after in zip(weight_layers(pruned.module).values(), weight_layers(made.module).values(), strict=True):
        assert bool((after.weight[before.weight == 0] == 0).all())
        assert len(after.weight.unique()) <= 9


WEIGHTS = st.lists(st.floats(-5.0, 5.0, width=32), min_size=4, max_size=30).map(torch.tensor)


@given(weight=WEIGHTS, centroids=st.lists(st.floats(-5.0, 5.0, width=32), min_size=2, max_size=6, unique=True))
def test_the_nearest_centroid_stands_for_a_weight(weight: Tensor, centroids: list[float]) -> None:
    """Nothing is nearer than the centroid that is chosen, and moving centroids to means never raises the error."""
    table = NearestCentroid(torch.tensor(centroids)).eval()
    distances = (weight[:, None] - torch.tensor(centroids)).abs()
    torch.testing.assert_close((table(weight) - weight).abs(), distances.min(dim=1).values)
    before = (table(weight) - weight).square().sum()
    table.move_to_means(weight)
    assert (table(weight) - weight).square().sum() <= before + 1e-4


def test_gradients_pass_straight_through() -> None:
    """A weight's gradient is that of the centroid in its place."""
    weight = torch.tensor([0.1, 0.9, -0.4], requires_grad=True)
    table = NearestCentroid(torch.tensor([-0.5, 0.0, 1.0])).train()
    (table(weight) * torch.tensor([1.0, 2.0, 3.0])).sum().backward()
    assert weight.grad is not None
    assert weight.grad.tolist() == [1.0, 2.0, 3.0]


@pytest.mark.parametrize(("distinct", "expected"), [(2, 1 * 8 + 8), (16, 4 * 8 + 64), (17, 5 * 8 + 68)])
def test_indices_take_whole_bits(distinct: int, expected: int) -> None:
    """64 weights of so many distinct values take that many bits each, and a table of float32."""
    assert indexed_bytes(torch.arange(64) % distinct) == expected
