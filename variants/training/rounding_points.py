"""Where a network's tensors are rounded to int8, so that onnxruntime can fuse as much as possible into int8 kernels.

A convolution runs in int8 only if its output is rounded as well, best after the ReLU that follows: that costs no
precision on values that the ReLU removes, and the ReLU itself vanishes. A matrix product runs in int8 with a float
output. So what is rounded is every tensor that a layer takes, and every tensor that a convolution gives, each once.
"""

from __future__ import annotations

import operator

import torch
from torch import fx, nn
from torch.fx.experimental.optimization import fuse

from variants.training.fake_quantization import RoundedLayer, activation_rounding
from variants.training.layers import weight_layers

_RELU_MODULES = (nn.ReLU, nn.ReLU6)
_RELU_FUNCTIONS = frozenset({torch.relu, nn.functional.relu, nn.functional.relu6, "relu", "relu_"})
_KEEPS_VALUES_MODULES = (nn.Flatten, nn.Unflatten, nn.MaxPool2d, nn.Dropout, nn.Dropout2d, nn.Identity)
_KEEPS_VALUES_FUNCTIONS = frozenset(
    {torch.flatten, torch.reshape, torch.permute, torch.transpose, operator.getitem, nn.functional.max_pool2d}
    | {"flatten", "view", "reshape", "permute", "transpose", "contiguous", "unflatten", "unsqueeze", "squeeze"}
)


def rounded(module: nn.Module, weight_bits: int) -> nn.Module:
    """Return the network with batch normalization folded into its convolutions and all roundings in place.

    The module is changed too. Where its code cannot be traced, every layer rounds its input and every convolution its
    output, and batch normalization stays: correct, but fewer kernels run in int8.
    """
    try:
        traced = fx.symbolic_trace(fuse(module.eval()))
    except (fx.proxy.TraceError, TypeError, RuntimeError, ValueError, NameError, AttributeError):
        for path, layer in weight_layers(module).items():
            module.set_submodule(
                path, RoundedLayer(layer, weight_bits, inputs=True, outputs=isinstance(layer, nn.Conv2d))
            )
        return module
    layers = weight_layers(traced)
    nodes = [node for node in traced.graph.nodes if node.op == "call_module" and node.target in layers]
    # Where a rounding comes after a node, and by the range of which node's values.
    points: dict[fx.Node, fx.Node] = {}
    for node in nodes:
        taken = node.args[0]
        source = _source(traced, taken)
        # The same rounding twice is one; the second stands where onnxruntime looks for it: right before the layer.
        points |= {source: source, taken: source}
        if isinstance(layers[node.target], nn.Conv2d):
            given = _after_relu(traced, node)
            points[given] = given
    names = {source: f"rounding_{number}" for number, source in enumerate(dict.fromkeys(points.values()))}
    for name in names.values():
        traced.add_module(name, activation_rounding())
    for node, source in points.items():
        with traced.graph.inserting_after(node):
            rounding = traced.graph.call_module(names[source], (node,))
        for user in list(node.users):
            if user is not rounding:
                user.replace_input_with(node, rounding)
    for path, layer in layers.items():
        traced.set_submodule(path, RoundedLayer(layer, weight_bits, inputs=False, outputs=False))
    traced.recompile()
    return traced


def _source(traced: fx.GraphModule, node: fx.Node) -> fx.Node:
    """Go back over what moves values but does not change them: rounded before, they are rounded after."""
    while _is(traced, node, _KEEPS_VALUES_MODULES, _KEEPS_VALUES_FUNCTIONS) and isinstance(node.args[0], fx.Node):
        # A whole number may choose one of several tensors, as of what attention gives; before that there is no tensor.
        if node.target is operator.getitem and isinstance(node.args[1], int):
            break
        node = node.args[0]
    return node


def _after_relu(traced: fx.GraphModule, node: fx.Node) -> fx.Node:
    users = list(node.users)
    return users[0] if len(users) == 1 and _is(traced, users[0], _RELU_MODULES, _RELU_FUNCTIONS) else node


def _is(
    traced: fx.GraphModule, node: fx.Node, modules: tuple[type[nn.Module], ...], functions: frozenset[object]
) -> bool:
    if node.op == "call_module":
        return isinstance(traced.get_submodule(str(node.target)), modules)
    return node.op in ("call_function", "call_method") and node.target in functions
