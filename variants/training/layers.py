"""Which layers of a network recipes work on, and which of them gives the answer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from variants.recipes.artifact import RecipeError


def weight_layers(module: nn.Module) -> dict[str, nn.Linear | nn.Conv2d]:
    """Return the linear and convolutional layers by their path.

    Those within `nn.MultiheadAttention` are left out: it reads their weights itself and never calls them. Raises
    `RecipeError` where none is left.
    """
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


def classifier_path(module: nn.Module, example: Mapping[str, Tensor]) -> str:
    """Return the path of the layer whose output is the network's. Raises `RecipeError` where none gives it."""
    outputs: dict[str, Tensor] = {}
    layers = weight_layers(module)
    with torch.no_grad(), captured(module, tuple(layers), outputs):
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
