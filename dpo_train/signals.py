"""Ctrl-C and SIGTERM end a run after the step it is in, with a checkpoint: a scheduler's warning costs no work.

A second signal stops at once, and then, as after kill -9, the steps since the last checkpoint are lost.
Where several processes train, each may hear of the signal in another step, so they ask each other after every step.
Python hears signals in the main thread only; a run in any other thread stops as it always would.
"""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from dpo_train import checkpoints

logger = logging.getLogger(__name__)
SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(KeyboardInterrupt):
    """A run that was asked to stop; the message says from which step it goes on and how."""

    def __init__(self, run: Path, total: int, number: int) -> None:
        found = checkpoints.latest(run / "checkpoints")
        step = checkpoints.read_state(found)["step"] if found else 0
        super().__init__(
            f"Stopped by {signal.Signals(number).name}: the run is kept up to step {step} of {total} in {run}. The "
            "same command goes on from there (`train(..., resume=True)` in Python)."
        )
        self.exit_code = 128 + number  # as shells count


class StopRequest:
    """Which signal has asked the run to stop; 0 for none."""

    def __init__(self) -> None:
        self.number = 0

    def heard(self, accelerator: Any) -> int:
        """The signal that any process has heard."""
        if accelerator.num_processes > 1:
            mine = torch.tensor([self.number], device=accelerator.device)
            self.number = int(accelerator.gather(mine).max())
        return self.number

    def hear(self, number: int, _: Any) -> None:
        """Take note of the first signal; a second one stops at once."""
        if self.number:
            raise KeyboardInterrupt
        self.number = number
        logger.warning("%s: stopping after this step (once more: at once)", signal.Signals(number).name)


@contextmanager
def listening(run: Path, total: int) -> Iterator[StopRequest]:
    """Signals become requests in here; an interruption that comes through says from where the run goes on."""
    requests = StopRequest()
    main = threading.current_thread() is threading.main_thread()
    before = {number: signal.signal(number, requests.hear) for number in SIGNALS} if main else {}
    try:
        yield requests
    except Interrupted:
        raise
    except KeyboardInterrupt as stopped:
        raise Interrupted(run, total, requests.number or signal.SIGINT) from stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
