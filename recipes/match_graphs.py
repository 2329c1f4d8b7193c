"""Weights of a graph that OpenVINO reads (IR or ONNX), for a torch network of the same computation.

Both graphs are traversed backwards from their outputs in parallel: each convolution of the network gets the weight and
bias of its counterpart. Batch norms must be folded into the convolutions of the file.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from posecli.errors import DataError

# Operations with one input and without weights, which are skipped.
_PASSED = frozenset(
    [
        "Convert",
        "HSigmoid",
        "HardSigmoid",
        "Interpolate",
        "MaxPool",
        "ReduceMean",
        "Relu",
        "Reshape",
        "ShuffleChannels",
        "Swish",
        "Transpose",
    ]
)
_PASSED_FUNCTIONS = frozenset(["boolean_dispatch", "fn", "hardsigmoid", "interpolate", "max_pool2d", "mean", "relu"])
_PASSED_MODULES = (nn.ReLU, nn.SiLU, nn.Identity, nn.ChannelShuffle)
_ADDITIONS = ("add", "iadd")


class _Tracer(fx.Tracer):
    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        return isinstance(module, (nn.Conv2d, *_PASSED_MODULES))


def matched_state(network: nn.Module, outputs: Iterable[Any], name: str) -> dict[str, Tensor]:
    """State of a network's convolutions, float32.

    outputs: those of OpenVINO's graph (Output), one for each of the network's, in its order; lists and tuples of them
    are flattened. name: of the network, for messages. Raises DataError where the graphs differ.
    """
    found = _Matcher(network, name).match(list(outputs))
    wanted = [key for key, module in network.named_modules() if isinstance(module, nn.Conv2d)]
    missing = [key for key in wanted if key not in found]
    if missing:
        raise DataError(f"no counterpart of {len(missing)} convolutions, first {missing[0]}")
    state = {}
    for key, (weight, bias) in found.items():
        state[f"{key}.weight"], state[f"{key}.bias"] = torch.from_numpy(weight), torch.from_numpy(bias)
    return state


def constant(value: Any) -> np.ndarray | None:
    """A constant's values in float32, through conversions and reshapes; None for computed values."""
    node = value.get_node()
    while node.get_type_name() in ("Convert", "Reshape"):
        node = node.input_value(0).get_node()
    return np.array(node.data, np.float32) if node.get_type_name() == "Constant" else None


class _Matcher:
    """found: a convolution's name → weight and bias of its counterpart."""

    def __init__(self, network: nn.Module, name: str) -> None:
        self._name = name
        self._modules = dict(network.named_modules())
        self._graph = _Tracer().trace(network)
        self._seen: set[tuple[fx.Node, str, int]] = set()
        self.found: dict[str, tuple[np.ndarray, np.ndarray]] = {}

    def match(self, outputs: list[Any]) -> Mapping[str, tuple[np.ndarray, np.ndarray]]:
        last = next(node for node in self._graph.nodes if node.op == "output")
        waiting: list[tuple[Any, Any]] = list(zip(_flat(last.args[0]), outputs, strict=True))
        while waiting:
            waiting += self._step(*waiting.pop())
        return self.found

    def _step(self, node: fx.Node, value: Any) -> list[tuple[Any, Any]]:
        """The pairs of inputs of a pair."""
        other = value.get_node()
        key = (node, other.get_friendly_name(), value.get_index())
        if key in self._seen:
            return []
        self._seen.add(key)
        kind = other.get_type_name()
        if kind in _PASSED:
            return [(node, other.input_value(0))]
        if kind == "Multiply" and (constant(other.input_value(1)) is not None or _is_silu(other)):
            return [(node, other.input_value(0))]
        node = self._before_unary(node)
        return self._before(node, value, kind)

    def _before(self, node: fx.Node, value: Any, kind: str) -> list[tuple[Any, Any]]:
        other, inputs = value.get_node(), node.args
        function = getattr(node.target, "__name__", "") if node.op == "call_function" else ""
        if kind == "Add" and (bias := constant(other.input_value(1))) is not None:
            return [self._take(node, other.input_value(0).get_node(), bias)]
        if (kind == "Add" and function in _ADDITIONS) or (kind == "Multiply" and function == "mul"):
            return [(inputs[0], other.input_value(0)), (inputs[1], other.input_value(1))]
        if kind == "Concat" and node.target is torch.cat:
            return list(zip(_flat(inputs[0]), other.input_values(), strict=True))
        halves = kind in ("Split", "VariadicSplit") and function == "getitem"
        if halves and inputs[1] == value.get_index():
            whole: Any = inputs[0]
            return [(whole.args[0], other.input_value(0))]
        if kind == "Parameter" and node.op == "placeholder":
            return []
        raise DataError(f"the file has {kind} where {self._name} has {node.target}")

    def _before_unary(self, node: fx.Node) -> fx.Node:
        while True:
            name = getattr(node.target, "__name__", "") if node.op == "call_function" else str(node.target)
            passed = name in _PASSED_FUNCTIONS and node.op in ("call_function", "call_method")
            if not passed and not isinstance(self._module(node), _PASSED_MODULES):
                return node
            before = node.args[0]
            assert isinstance(before, fx.Node)
            node = before

    def _module(self, node: fx.Node) -> nn.Module | None:
        return self._modules.get(str(node.target)) if node.op == "call_module" else None

    def _take(self, node: fx.Node, convolution: Any, bias: np.ndarray) -> tuple[Any, Any]:
        module = self._module(node)
        weight = constant(convolution.input_value(1)) if "Convolution" in convolution.get_type_name() else None
        if not isinstance(module, nn.Conv2d) or weight is None or weight.size != module.weight.numel():
            raise DataError(f"the file's {convolution.get_friendly_name()} is not {self._name}'s {node.target}")
        self.found[str(node.target)] = weight.reshape(module.weight.shape), bias.reshape(-1)
        return node.args[0], convolution.input_value(0)


def _is_silu(product: Any) -> bool:
    """Whether a product is x · sigmoid(x)."""
    gate = product.input_value(1).get_node()
    return bool(
        gate.get_type_name() == "Sigmoid"
        and gate.input_value(0).get_node().get_friendly_name() == product.input_value(0).get_node().get_friendly_name()
    )


def _flat(nodes: Any) -> list[Any]:
    """Nodes of nested lists and tuples, in order."""
    return [node for part in nodes for node in _flat(part)] if isinstance(nodes, list | tuple) else [nodes]
