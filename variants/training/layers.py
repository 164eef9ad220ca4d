"""Which layers of a network recipes work on, and which of them gives the answer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from variants.recipes.artifact import RecipeError


def weight_layers(module: nn.Module) -> dict[str, nn.Linear | nn.Conv2d]:
    """Return the linear and convolutional layers by their path.

    Those within `nn.MultiheadAttention` are left out: it reads their weights itself and never calls them. Raises
    `RecipeError` where none is left, or where a layer's weights are no parameter but computed anew whenever they are
    read, as under weight normalization: what a recipe does to them would be lost.
    """
    layers = _called_layers(module)
    for path, layer in layers.items():
        if "weight" not in dict(layer.named_parameters(recurse=False)):
            raise RecipeError(
                f"the weights of {path!r} are computed (weight norm?): remove their parametrization first"
            )
    return layers


def _called_layers(module: nn.Module) -> dict[str, nn.Linear | nn.Conv2d]:
    hidden = {
        id(part)
        for parent in module.modules()
        if isinstance(parent, nn.MultiheadAttention)
        for part in parent.modules()
    }
    layers = {
        path: layer
        for path, layer in module.named_modules()
        if isinstance(layer, (nn.Linear, nn.Conv2d)) and id(layer) not in hidden
    }
    if not layers:
        raise RecipeError("the network has no Linear and no Conv2d layer")
    return layers


def shared_weights(module: nn.Module) -> set[int]:
    """Return the `id` of every parameter that has several places in the network."""
    times = Counter(id(weight) for _, weight in module.named_parameters(remove_duplicate=False))
    return {weight for weight, count in times.items() if count > 1}


@contextmanager
def faults_of_the_network(what: str) -> Iterator[None]:
    """Turn what the network's own code raises within the block into a `RecipeError` that begins with `what`."""
    try:
        yield
    except (RuntimeError, LookupError, ValueError, TypeError, AttributeError, AssertionError) as error:
        raise RecipeError(f"{what}: {' '.join(str(error).split())[:200]}") from error


def classifier_path(module: nn.Module, example: Mapping[str, Tensor]) -> str:
    """Return the path of the layer whose output is the network's. Raises `RecipeError` where none gives it."""
    outputs: dict[str, Tensor] = {}
    with torch.no_grad(), captured(module, tuple(_called_layers(module)), outputs):
        answer = module(*example.values())
    for path, output in outputs.items():
        if output is answer:
            return path
    raise RecipeError("no Linear or Conv2d layer gives the network's logits itself")


@contextmanager
def captured(module: nn.Module, paths: tuple[str, ...], outputs: dict[str, Tensor]) -> Iterator[None]:
    """Within the block, enter what the submodules at `paths` answer into `outputs` (the first of several tensors).

    Raises `RecipeError` where a path leads nowhere.
    """

    def entering(path: str) -> Any:
        def enter(_: nn.Module, __: Any, output: Any) -> None:
            outputs[path] = output[0] if isinstance(output, tuple) else output

        return enter

    handles = [part(module, path).register_forward_hook(entering(path)) for path in paths]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def captured_input(module: nn.Module, path: str, inputs: dict[str, Tensor]) -> Iterator[None]:
    """Within the block, enter the first argument of the submodule at `path` into `inputs`."""

    def enter(_: nn.Module, arguments: tuple[Any, ...]) -> None:
        inputs[path] = arguments[0]

    handle = part(module, path).register_forward_pre_hook(enter)
    try:
        yield
    finally:
        handle.remove()


def part(module: nn.Module, path: str) -> nn.Module:
    """Return the submodule at a path. Raises `RecipeError` where there is none."""
    try:
        return module.get_submodule(path)
    except AttributeError as error:
        raise RecipeError(f"the network has no part {path!r}; it has {_parts(module)}") from error


def _parts(module: nn.Module) -> str:
    names = [path for path, _ in module.named_modules() if path]
    return ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
