from __future__ import annotations

from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.networks import Encoder, convolutional, digits, encoder, perceptron, sentences
from variants.recipes.artifact import RecipeError
from variants.recipes.channel_pruning import ChannelPruning
from variants.recipes.layer_dropping import LayerDropping
from variants.recipes.magnitude_pruning import MagnitudePruning, _Pruner, cubic_sparsity
from variants.recipes.supervised import Supervised
from variants.session import open_session
from variants.training.export import export_model
from variants.training.layers import weight_layers
from variants.training.model import Model
from variants.training.settings import FitSettings

QUICK = FitSettings(epochs=2, batch=50, rate=1e-3)
NONE = FitSettings(epochs=0)


@cache
def trained() -> Model:
    return Supervised(FitSettings(epochs=6, batch=50, rate=3e-3))(convolutional(), digits())


def zeros(module: nn.Module) -> int:
    return sum(int((layer.weight == 0).sum()) for layer in weight_layers(module).values())


def weights(module: nn.Module) -> int:
    return sum(layer.weight.numel() for layer in weight_layers(module).values())


@given(begin=st.floats(0.0, 0.9), span=st.floats(0.05, 1.0), start=st.floats(0.0, 0.5), done=st.floats(0.0, 1.0))
def test_sparsity_rises_from_start_to_final(begin: float, span: float, start: float, done: float) -> None:
    """It is `start` until `begin`, `final` from `end`, never falls, and rises most at first."""
    end = begin + span
    assume(end <= 1.0)

    def at(share: float) -> float:
        return cubic_sparsity(share, begin=begin, end=end, start=start, final=0.9)

    assert at(begin) == pytest.approx(start)
    assert at(0.0) == pytest.approx(start)
    assert at(end) == at(1.0) == pytest.approx(0.9)
    assert at(done) <= at(min(1.0, done + 0.01)) + 1e-12
    assert at(begin + span / 2) >= (start + 0.9) / 2 - 1e-12


@pytest.mark.parametrize("fit", [QUICK, NONE], ids=["while training", "at once"])
@pytest.mark.parametrize("scope", ["network", "layer"])
def test_magnitude_pruning_leaves_the_share_of_zeros(fit: FitSettings, scope: str) -> None:
    """Exactly the wanted share of weights is zero, over the network or in every layer; the step says so."""
    pruned = MagnitudePruning(0.75, fit, scope=scope)(trained(), digits())  # type: ignore[arg-type]  # a literal
    assert zeros(pruned.module) == round(0.75 * weights(pruned.module))
    assert pruned.lineage[-1].measures["sparsity"] == pytest.approx(0.75, abs=1e-4)
    if scope == "layer":
        for layer in weight_layers(pruned.module).values():
            assert int((layer.weight == 0).sum()) == round(0.75 * layer.weight.numel())


def test_the_smallest_weights_are_pruned() -> None:
    """Without training, what stays is what it was, and larger than all that went."""
    pruned = MagnitudePruning(0.5, NONE)(trained(), digits())
    pairs = [
        (before.weight.abs(), after.weight.abs())
        for before, after in zip(
            weight_layers(trained().module).values(), weight_layers(pruned.module).values(), strict=True
        )
    ]
    kept = torch.cat([before[after > 0] for before, after in pairs])
    gone = torch.cat([before[after == 0] for before, after in pairs])
    assert torch.equal(kept, torch.cat([after[after > 0] for _, after in pairs]))
    assert gone.max() <= kept.min()


def test_a_weight_that_went_does_not_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """While sparsity rises, what is zero stays among the zeros, however far the optimizer moves it in a step."""
    seen: list[Tensor] = []
    zero = _Pruner.zero

    def recorded(pruner: _Pruner) -> None:
        zero(pruner)
        if pruner._kept:
            seen.append(torch.cat([(weight == 0).flatten() for weight, _ in pruner._kept]))

    monkeypatch.setattr(_Pruner, "zero", recorded)
    MagnitudePruning(0.9, FitSettings(epochs=6, batch=50, rate=0.05, schedule="constant"))(trained(), digits())
    assert len({int(mask.sum()) for mask in seen}) > 3
    assert all(bool((after | ~before).all()) for before, after in pairwise(seen))


def test_zeros_stay_zero_in_later_steps() -> None:
    """Whatever trains after pruning leaves the pruned weights alone and moves the others."""
    pruned = MagnitudePruning(0.75, NONE)(trained(), digits())
    tuned = Supervised(QUICK)(pruned, digits())
    for before, after in zip(weight_layers(pruned.module).values(), weight_layers(tuned.module).values(), strict=True):
        assert bool((after.weight[before.weight == 0] == 0).all())
        assert not torch.equal(before.weight, after.weight)


@pytest.mark.parametrize(("everywhere", "importance"), [(True, "magnitude"), (False, "taylor")])
def test_channel_pruning_shrinks_the_graph(tmp_path: Path, everywhere: bool, importance: str) -> None:
    """Layers have fewer channels, the ONNX file fewer weights and bytes, and it answers as the module does."""
    recipe = ChannelPruning(0.5, 2, QUICK, importance, everywhere)  # type: ignore[arg-type]  # a literal
    pruned = recipe(trained(), digits())
    before = export_model(trained(), tmp_path / "before.onnx")
    after = export_model(pruned, tmp_path / "after.onnx")
    assert after.parameters == pruned.parameters < 0.6 * before.parameters
    assert after.path.stat().st_size < 0.7 * before.path.stat().st_size
    stored = sum(int(np.prod(tensor.dims)) for tensor in onnx.load(after.path).graph.initializer)
    assert stored <= after.parameters + 64
    measures = pruned.lineage[-1].measures
    assert 0.0 < measures["multiply_adds_kept"] < 0.6
    assert measures["parameters_kept"] == pytest.approx(after.parameters / before.parameters, rel=0.01)
    images = digits().validation.inputs[0].numpy()
    logits = open_session(after.path).run({"image": images})["logits"]
    assert logits.shape == (200, 10)
    assert abs(logits - pruned.reference()({"image": images})).max() < 1e-3


def test_spared_layers_keep_their_channels() -> None:
    """A spared layer and the one that gives the logits keep their outputs; multiples are kept to."""
    pruned = ChannelPruning(0.5, fit=NONE, spare=("5",), multiple_of=4)(trained(), digits())
    layers = weight_layers(pruned.module)
    assert (16, 10) == (layers["5"].weight.shape[0], layers["10"].weight.shape[0])
    assert (4, 16) == (layers["0"].weight.shape[0], layers["8"].weight.shape[0])


class FixedWidth(nn.Module):
    """A network whose code writes a number of channels down."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(1, 8, 3, padding=1)
        self.classifier = nn.Linear(8 * 64, 10)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.convolution(images).view(-1, 8, 64).flatten(1))
        return logits


@pytest.mark.parametrize(
    ("network", "reason"),
    [
        (FixedWidth(), "fixes numbers of channels"),
        (nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), "no channel could be removed"),
        (nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.Softplus()), "no Linear or Conv2d layer gives"),
        (nn.Flatten(), "no Linear and no Conv2d"),
    ],
)
def test_networks_that_cannot_lose_channels_are_refused(network: nn.Module, reason: str) -> None:
    """What does not fit the technique is one line that says why."""
    model = Model("other", network, {"image": digits().train.inputs[0][:2]})
    with pytest.raises(RecipeError, match=reason):
        ChannelPruning(fit=NONE)(model, digits())


@pytest.mark.parametrize(("which", "expected"), [("last", [0, 1]), ("spread", [0, 3]), ("insensitive", None)])
def test_layers_are_dropped(which: str, expected: list[int] | None) -> None:
    """Two of four layers stay, the ones that the rule names, with their weights; the network has fewer parameters."""
    deep = encoder(depth=4)
    dropped = LayerDropping("layers", 2, which, NONE)(deep, sentences())  # type: ignore[arg-type]  # a literal
    assert isinstance(dropped.module, Encoder)
    assert isinstance(deep.module, Encoder)
    originals = [layer.query_key_value.weight for layer in deep.module.layers]  # type: ignore[union-attr]  # Layer
    kept = [
        next(place for place, weight in enumerate(originals) if torch.equal(weight, layer.query_key_value.weight))  # type: ignore[arg-type, union-attr]  # Layer
        for layer in dropped.module.layers
    ]
    assert kept == sorted(set(kept))
    assert len(kept) == 2
    if expected is not None:
        assert kept == expected
    assert dropped.parameters < deep.parameters
    assert dropped.lineage[-1].measures["layers"] == 2.0


def test_the_least_sensitive_layer_goes_first() -> None:
    """A layer that spoils the answer is dropped before layers that do no harm."""
    deep = Supervised(FitSettings(epochs=4, rate=3e-3))(encoder(depth=3), sentences())
    assert isinstance(deep.module, Encoder)
    spoilt = deep.module.layers[1]
    with torch.no_grad():
        for weight in spoilt.parameters():
            weight.normal_(std=3.0, generator=torch.Generator().manual_seed(0))
    dropped = LayerDropping("layers", 2, "insensitive", NONE)(deep, sentences())
    assert isinstance(dropped.module, Encoder)
    left = [next(layer.parameters()) for layer in dropped.module.layers]
    assert not any(torch.equal(next(spoilt.parameters()), weight) for weight in left)


@pytest.mark.parametrize(
    ("stack", "keep", "reason"),
    [
        ("blocks", 1, "no part 'blocks'; it has words, layers"),
        ("classifier", 1, "is a Linear, not a ModuleList"),
        ("layers", 2, "keep 1 to 1 of them, not 2"),
    ],
)
def test_stacks_that_cannot_lose_layers_are_refused(stack: str, keep: int, reason: str) -> None:
    """A wrong path, another kind of part, and too many layers are each one line."""
    with pytest.raises(RecipeError, match=reason):
        LayerDropping(stack, keep, fit=NONE)(encoder(), sentences())


def test_layers_that_others_need_cannot_be_dropped() -> None:
    """A stack whose layers have different shapes is refused with the network's own complaint."""
    wrapped = Model("wrapped", nn.Sequential(perceptron().module), perceptron().example)
    with pytest.raises(RecipeError, match="the network does not run"):
        LayerDropping("0", 2, fit=NONE)(wrapped, digits())
