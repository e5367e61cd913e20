"""Matrix products of linear layers on a CPU, through oneDNN instead of PyTorch's default library.

PyTorch hands float32 products to Intel's MKL, which uses half of what processors of other makers can do; oneDNN, which
every PyTorch build carries as well, writes its code for the processor it meets. On an AMD EPYC that is 179
against 83 GFLOP per CPU second (tests/bench/bench_trainer.py prints both). The sums are the same in another order.
No weight is copied, since oneDNN reads a transposed view as fast.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn


def matmul(left: Tensor, right: Tensor, bias: Tensor | None = None) -> Tensor:
    """`left @ right.T + bias`, as `torch.nn.functional.linear`: left (..., inner), right (outer, inner)."""
    product: Tensor = torch.ops.mkldnn._linear_pointwise(left, right, bias, "none", [], "")
    return product


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(inputs if ctx.needs_input_grad[1] else None, weight)
        return matmul(inputs, weight, bias)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        inputs, weight = ctx.saved_tensors
        (grad,) = upstream
        rows = grad.reshape(-1, grad.shape[-1])
        of_inputs, of_weight, of_bias = ctx.needs_input_grad
        return (
            matmul(grad, weight.t()) if of_inputs else None,
            matmul(rows.t(), inputs.reshape(-1, inputs.shape[-1]).t()) if of_weight else None,
            rows.sum(0) if of_bias else None,
        )


class FastLinear(nn.Linear):
    """A linear layer whose products go through oneDNN; made of a plain one by `speed_up`, never built."""

    def forward(self, input: Tensor) -> Tensor:
        """As `nn.Linear`."""
        product: Callable[..., Tensor] = _Product.apply
        # Rows, and the shape put back outside: oneDNN's result for a stack of them is a view, which a model that
        # changes it in place (Gemma 3n) could not differentiate.
        rows = product(input.reshape(-1, input.shape[-1]), self.weight, self.bias)
        return rows.view(*input.shape[:-1], rows.shape[-1])


@cache
def usable(dtype: torch.dtype, device: torch.device) -> bool:
    """Whether oneDNN takes these products and gives the right sums here: tried on a small one, forward."""
    if device.type != "cpu" or dtype != torch.float32:
        return False
    left, right = torch.linspace(-1, 1, 12).reshape(3, 4), torch.linspace(0, 1, 20).reshape(5, 4)
    try:
        return torch.allclose(matmul(left, right), left @ right.t(), atol=1e-5)
    except (AttributeError, RuntimeError):  # an operator of PyTorch's own compiler: another version may not have it
        return False


def speed_up(network: nn.Module, device: torch.device) -> None:
    """Send the products of every plain linear layer of a float32 network on a CPU through oneDNN, where that works;
    `device` is the one that it will compute on."""
    for layer in network.modules():
        if type(layer) is nn.Linear and usable(layer.weight.dtype, device):
            layer.__class__ = FastLinear
