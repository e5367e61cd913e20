"""Progress bars, our own and those of the libraries underneath: for a person at a terminal, kept out of logs and pipes.

transformers, its GGUF reader, the Hub and `datasets` each draw bars of their own. They are turned off for a while and
put back as they were, so that a program that imports this package keeps its settings. Whatever opens or writes a model
or a data set is decorated with `@quiet_bars()`, so that benches and scripts that call it are quiet too.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


def bar(total: int, what: str, unit: str, done: int = 0, stays: bool = True) -> Any:
    """A progress bar with the time left; of several processes at one terminal only the first draws it."""
    from tqdm import tqdm  # type: ignore[import-untyped]

    quiet = None if os.environ.get("LOCAL_RANK", "0") == "0" else True  # None: shown at a terminal only
    return tqdm(total=total, initial=done, desc=what, unit=unit, leave=stays, disable=quiet, dynamic_ncols=True)


@contextmanager
def quiet_bars() -> Iterator[None]:
    """No progress bars of libraries in here, unless standard error is a terminal."""
    if sys.stderr.isatty():
        yield
        return
    import datasets
    from transformers import modeling_gguf_pytorch_utils as gguf
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled(), not datasets.are_progress_bars_disabled(), gguf.tqdm
    logging.disable_progress_bar()
    datasets.disable_progress_bars()
    gguf.tqdm = logging.tqdm  # it takes tqdm's own, which no setting reaches
    try:
        yield
    finally:
        gguf.tqdm = shown[2]
        if shown[0]:
            logging.enable_progress_bar()
        if shown[1]:
            datasets.enable_progress_bars()


@contextmanager
def quiet_peft() -> Iterator[None]:
    """Silence what peft warns about and this trainer takes care of."""
    with warnings.catch_warnings():  # peft 0.21 asks transformers by a name that transformers 5.23 calls old
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
        # Of fused experts, which it names otherwise on reopening; what is merged is compared with the run.
        warnings.filterwarnings("ignore", message="The following (rank|alpha)_pattern keys", category=RuntimeWarning)
        # `merging` gives a head that shares the embedding's weight one of its own, and compares the result.
        warnings.filterwarnings("ignore", message="Model .*tie_word_embeddings=True", category=UserWarning)
        warnings.filterwarnings("ignore", message="fan_in_fan_out is set to False")  # GPT-2: peft sets it right
        warnings.filterwarnings("ignore", message="Setting `save_embedding_layers`", category=UserWarning)
        yield
