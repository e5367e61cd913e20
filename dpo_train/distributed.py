"""What the processes of one run do together: share rows out, gather what each found, add their gradients up.

All of them call these functions, in the same order. Gradients of sharded weights are added up where they
arise, in the backward pass, so nothing is left to share for them; and their norm is known in parts, one a process.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from dpo_train.statistics import Indices


def share(indices: Indices, accelerator: Any) -> Indices:
    """This process's part of some rows: every n-th of them, for n processes."""
    mine: Indices = indices[accelerator.process_index :: accelerator.num_processes]
    return mine


def gather(accelerator: Any, items: list[Any]) -> list[Any]:
    """The lists of all processes, one behind the other, on every process."""
    if accelerator.num_processes == 1:
        return items
    from accelerate.utils import gather_object

    found: list[Any] = gather_object(items)
    return found


def share_gradient(parameters: Mapping[str, nn.Parameter], accelerator: Any) -> None:
    """Sum `.grad` over the processes."""
    if accelerator.num_processes == 1:
        return
    for parameter in parameters.values():
        if not isinstance(parameter, DTensor):
            grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            parameter.grad = accelerator.reduce(grad, "sum")


def clip_gradient(parameters: Mapping[str, nn.Parameter], most: float) -> float:
    """Scale `.grad` down to a norm of at most `most`; returns the norm it had, the same on every process."""
    norm = nn.utils.clip_grad_norm_(parameters.values(), most)
    return float(norm.full_tensor() if isinstance(norm, DTensor) else norm)


def whole(tensors: Mapping[str, Tensor], keep: bool) -> dict[str, Tensor]:
    """The tensors on the CPU, shards put together, one after the other; nothing on a process that does not `keep`."""
    found = {}
    for name, tensor in tensors.items():
        value = tensor.detach()
        value = value.full_tensor() if isinstance(value, DTensor) else value
        if keep:
            found[name] = value.cpu()
    return found


def put(value: Tensor, into: Tensor) -> None:
    """Copy a whole tensor, known to every process, into a tensor or into this process's shard of it."""
    if isinstance(into, DTensor):
        from torch.distributed.tensor import distribute_tensor

        value = distribute_tensor(value.to(into.device), into.device_mesh, into.placements, src_data_rank=None)
    with torch.no_grad():
        into.copy_(value)


def first_process() -> bool:
    """Whether this is the only process of a training, or the first of those that a launcher started."""
    return os.environ.get("RANK", "0") == "0"
