"""Floating-point work counted by hand, and against what PyTorch itself counts."""

from pathlib import Path

import pytest
import torch
from helpers import tiny
from torch.utils.flop_counter import FlopCounterMode

from dpo_train.config import TrainConfig
from dpo_train.data.encoded_pair import EncodedPair
from dpo_train.policy.flops import FlopCounter, ModelFlops, least, shape_of
from dpo_train.policy.packing import collate
from dpo_train.train import train

PAIR = EncodedPair(prompt=(1, 2, 3), chosen=(4, 5, 6), rejected=(4, 7))


def test_the_least_of_a_pair_counted_by_hand() -> None:
    # Prefix 4 (the prompt and the 4 that both open with), then 5 of chosen; nothing follows from 6 or 7.
    tokens, scored, looks = 5, 4, 5 * 5 / 2
    shape = ModelFlops(body=100, head=10, attention=1)
    forward = 2 * (100 * tokens + 10 * scored + looks)
    assert least(shape, [PAIR], all_weights=False) == forward + 2 * (100 * tokens + 10 * scored + 2 * looks)
    assert least(shape, [PAIR], all_weights=True) == forward + 2 * (200 * tokens + 20 * scored + 2 * looks)


def test_a_forward_pass_is_counted_as_pytorch_counts_it() -> None:
    network = tiny.network()
    batch = collate([PAIR, EncodedPair((1, 2), (3, 4, 5, 6), (7, 8, 9))], shared=False)
    counter = FlopCounter(shape_of(network))
    counter.add(batch, learning=False, whole_logits=True)
    network.set_attn_implementation("eager")  # whose products PyTorch counts, whatever the machine
    with torch.no_grad(), FlopCounterMode(display=False) as theirs:
        network(input_ids=batch.input_ids)
    assert counter.done == pytest.approx(theirs.get_total_flops(), rel=0.001)


def test_a_run_says_how_much_of_its_work_was_needed(tmp_path: Path) -> None:
    model, version = str(tiny.model_folder(tmp_path / "model")), tiny.version(tmp_path)
    ratio = {}
    for shared in (True, False):
        config = TrainConfig(
            model=model, use_cpu=True, dtype="float32", max_steps=2, report_to=(), prefix_sharing=shared
        )
        summary = train(config, version, tmp_path / f"run-{shared}")
        assert summary.speed["tokens_per_second"] > summary.speed["pairs_per_second"] > 0
        assert summary.speed["share_of_matmul_peak"] > 0
        assert summary.speed["seconds"] >= summary.speed["step_seconds"]
        ratio[shared] = summary.speed["work_ratio"]
    assert 1 <= ratio[True] < 1.2  # the squares above the diagonal, which weigh much in a network this narrow
    assert ratio[False] > 1.3 * ratio[True]
