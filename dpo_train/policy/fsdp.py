"""Weights cut into shards over the processes, for a model that one device does not hold (PyTorch's FSDP2).

Every decoder layer is put together for as long as it is read and then cut again, forward and backward; embedding, last
norm and head likewise, but for a whole pass, as the one-pass head asks. An adapter is no burden and stays whole on
every process, so only full fine-tuning has gradients and moments in shards. Each forward pass gathers
weights from all processes, so all must make equally many passes, and one that has run out of pairs makes idle ones.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from dpo_train.config import TrainConfig, TrainError
from dpo_train.policy.logprobs import Sums, sums
from dpo_train.policy.packing import MicroBatch

_LAUNCHERS = {
    "FSDP_OFFLOAD_PARAMS": "set it to false; an adapter (use_peft) saves more",
    "FSDP_ACTIVATION_CHECKPOINTING": "set it to false, and gradient_checkpointing to true in the run's settings",
}


class Sharded(nn.Module):
    """The root of the shards: one call scores one micro-batch, and no weight is whole outside of it."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, batch: MicroBatch, needs: tuple[str, ...], whole_logits: bool) -> Sums:
        """As `logprobs.sums`."""
        return sums(self.network, batch, needs, whole_logits)


def wanted(config: TrainConfig) -> bool:
    """Whether the run's settings or its launcher (`accelerate launch --use_fsdp`) ask for shards."""
    return config.fsdp or os.environ.get("ACCELERATE_USE_FSDP", "").lower() == "true"


def check(config: TrainConfig, processes: int) -> None:
    """Raises `TrainError` where shards are wanted and cannot be had, or the launcher wants them otherwise."""
    if processes == 1:
        raise TrainError(
            "fsdp cuts weights over processes, and there is one: launch several with torchrun or accelerate, or set "
            "fsdp to false."
        )
    if config.load_in_4bit:  # with fsdp in the settings the settings say so; the launcher may ask for it too
        raise TrainError("weights packed into 4 bit cannot be cut into shards: launch without FSDP.")
    for name, instead in _LAUNCHERS.items():
        if os.environ.get(name, "").lower() == "true":
            raise TrainError(f"the launcher sets {name.lower()}, which this trainer does not do: {instead}.")


def shard(network: Any, learned: list[nn.Parameter], device: torch.device) -> Sharded:
    """Cut the weights of a network that lies on the CPU, the first process's copy of them, and put them on `device`.

    `learned` are an adapter's weights, which stay whole. Raises `TrainError` where the weights cannot be cut.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import FSDPModule, fully_shard

    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    options: dict[str, Any] = {"mesh": mesh, "ignored_params": set(learned), "reshard_after_forward": True}
    for parameter in learned:
        parameter.data = parameter.data.to(device)
        dist.broadcast(parameter.data, 0)
    root = Sharded(network)
    try:
        for layer in [*_layers(network), root]:
            _share(layer, device)  # a layer at a time: the device never holds more than one of them whole
            fully_shard(layer, **options)
    except (AssertionError, NotImplementedError, RuntimeError, ValueError) as error:
        raise TrainError(
            f"the weights of {type(network).__name__} cannot be sharded: {error} Set fsdp to false, and use an adapter "
            "(use_peft), load_in_4bit or gradient_checkpointing where memory is short."
        ) from error
    for part in root.modules():
        if isinstance(part, FSDPModule):
            part.set_gradient_divide_factor(1.0)  # a sum over the processes, as everywhere here; not a mean
            part.set_force_sum_reduction_for_comms(True)
    return root


def recover(root: Sharded) -> None:
    """Cut again what a pass that broke off has left whole, so that another way of scoring can be tried."""
    from torch.distributed.fsdp import FSDPModule

    assert isinstance(root, FSDPModule)
    root.reset_iter_state()


def as_first(text: str) -> str:
    """What the first process says."""
    said = [text]
    dist.broadcast_object_list(said, 0)
    return said[0]


def most_passes(own: int, device: torch.device) -> int:
    """How many forward passes the busiest process makes, where this one makes `own`."""
    count = torch.tensor(own, device=device)
    dist.all_reduce(count, dist.ReduceOp.MAX)
    return int(count)


def _layers(network: Any) -> Iterator[nn.Module]:
    """The parts that the model's makers say are to stay in one piece: its decoder layers."""
    names = set(network._no_split_modules or ())
    yield from (part for part in network.modules() if type(part).__name__ in names)


def _share(part: nn.Module, device: torch.device) -> None:
    """Put what is not yet in shards on the device, as the first process has it: others may have loaded nothing."""
    from torch.distributed.tensor import DTensor

    with torch.no_grad():
        for value in [*part.parameters(), *part.buffers()]:
            if not isinstance(value, DTensor):
                value.data = value.data.to(device)
                dist.broadcast(value.data, 0)
