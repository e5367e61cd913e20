"""One training run under a launcher, or alone: `[torchrun] tests/helpers/launched_run.py SETTINGS.json VERSION RUN`.

A run whose settings lie in interrupted.json is stopped by a signal in its third pass and taken up again; in between
each process writes what it was told, and how many of the model's weights it holds once they are cut.
"""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch
from torch.distributed.tensor import DTensor

from dpo_train.config import TrainConfig
from dpo_train.policy.load import open_policy
from dpo_train.signals import Interrupted
from dpo_train.train import train

RANK = os.environ.get("RANK", "0")


class StopInThirdPass:
    """The last process hears SIGTERM while it adds up a gradient; the first hears nothing."""

    def __init__(self) -> None:
        self.passes = 0

    def __call__(self, *_: Any) -> None:
        self.passes += 1
        if self.passes == 3 and RANK == "1":
            os.kill(os.getpid(), signal.SIGTERM)


def held(config: TrainConfig, cache: Path) -> dict[str, int]:
    """How many of the model's weights this process holds once they are cut."""
    policy = open_policy(config, cache, torch.device("cpu"), shards=True)
    policy.shard()
    weights = list(policy.network.parameters())
    here = [weight.to_local() if isinstance(weight, DTensor) else weight for weight in weights]
    return {"here": sum(part.numel() for part in here), "all": sum(weight.numel() for weight in weights)}


if __name__ == "__main__":
    settings, version, run = map(Path, sys.argv[1:])
    config = TrainConfig.model_validate_json(settings.read_text())
    try:
        train(config, version, run, observe=StopInThirdPass() if settings.name == "interrupted.json" else None)
    except Interrupted as stopped:
        (run / f"stopped-{RANK}").write_text(str(stopped))
        (run / f"held-{RANK}.json").write_text(json.dumps(held(config, run)))
        train(config, version, run, resume=True)
