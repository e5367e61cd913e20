"""One training run as a launcher starts it: `torchrun tests/launched_run.py CONFIG.json VERSION RUN`."""

import sys
from pathlib import Path

from dpo_train.config import TrainConfig
from dpo_train.train import train

if __name__ == "__main__":
    config, version, run = map(Path, sys.argv[1:])
    train(TrainConfig.model_validate_json(config.read_text()), version, run)
