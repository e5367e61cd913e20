"""Ways to train that few runs take: each gives the numbers of the plain way, moves what it says, or says why not."""

import logging
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import tiny

from dpo_train.config import TrainConfig, TrainError
from dpo_train.data.encoding import Encoder
from dpo_train.data.pairs import open_pairs
from dpo_train.gradients import add_gradient
from dpo_train.losses import Sigmoid
from dpo_train.policy.fsdp import check
from dpo_train.policy.load import wrap
from dpo_train.reference import reference
from dpo_train.scoring import ReferencedPairs, Scoring
from dpo_train.train import train

settings = partial(tiny.settings, max_steps=4, eval_steps=4)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(model folder, version folder)"""
    root = tmp_path_factory.mktemp("store")
    return tiny.model_folder(root / "model"), tiny.version(root)


def gradients(version: Path, cache: Path, **changes: Any) -> dict[str, torch.Tensor]:
    """Of one step over all training pairs, in float64, the weights a little away from the reference."""
    config = TrainConfig.model_validate({"use_cpu": True, **changes})
    network = tiny.network(dtype=torch.float64)
    policy = wrap(config, network, tiny.tokenizer(), {"model": "tiny"}, torch.device("cpu"))
    pairs = open_pairs(version, "train", Encoder(tiny.tokenizer(), 400, "drop"), cache)
    found = reference(policy, pairs, np.arange(len(pairs)), cache, 2000, tiny.ALONE)
    torch.manual_seed(2)
    with torch.no_grad():
        for parameter in policy.trainable().values():
            parameter.add_(torch.randn_like(parameter) * 0.02)
    add_gradient(Scoring(Sigmoid(), policy, 500, tiny.ALONE), ReferencedPairs(pairs, found), np.arange(len(pairs)))
    return {name: value.grad for name, value in policy.trainable().items() if value.grad is not None}


@pytest.mark.parametrize("kind", [{}, {"use_peft": False}, {"use_dora": True}], ids=["adapter", "full", "dora"])
def test_checkpointed_activations_give_the_gradient_of_kept_ones(
    place: tuple[Path, Path], tmp_path: Path, kind: dict[str, Any]
) -> None:
    kept, again = (gradients(place[1], tmp_path, gradient_checkpointing=on, **kind) for on in (False, True))
    assert kept.keys() == again.keys() and len(kept) > 3
    for name, value in kept.items():
        assert value.abs().max() > 0
        torch.testing.assert_close(again[name], value, rtol=1e-9, atol=1e-12)


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # peft 0.21 asks by an old name
def test_dora_and_rslora_train_and_open_as_what_they_are(place: tuple[Path, Path], tmp_path: Path) -> None:
    from peft import AutoPeftModelForCausalLM

    moved = {}
    for name, changes in (("plain", {}), ("dora", {"use_dora": True}), ("rslora", {"use_rslora": True})):
        summary = train(settings(place[0], **changes), place[1], tmp_path / name)
        opened = AutoPeftModelForCausalLM.from_pretrained(tmp_path / name / "adapter")
        config = opened.peft_config["default"]
        assert (config.use_dora, config.use_rslora) == (name == "dora", name == "rslora")
        moved[name] = summary.metrics["test"]["rewards/margins"]
    # rsLoRA scales by alpha/√r instead of alpha/r: its first steps reach further
    assert moved["rslora"] > moved["plain"] > 0 and moved["dora"] > 0


def test_a_tracker_or_a_quantiser_that_is_not_installed_is_named_with_what_to_do(
    place: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dpo_train.policy.run_checks.find_spec", lambda name: None if name == "wandb" else object())
    with pytest.raises(TrainError, match=r"report_to names wandb, which is not installed: run `pip install wandb`"):
        train(settings(place[0], report_to=("tensorboard", "wandb")), place[1], tmp_path / "run")
    with pytest.raises(TrainError, match="load_in_4bit needs a GPU"):
        train(settings(place[0], load_in_4bit=True), place[1], tmp_path / "run")
    with pytest.raises(ValueError, match="set use_peft to true"):
        settings(place[0], load_in_4bit=True, use_peft=False)


def test_shards_that_cannot_be_had_are_refused_before_anything_is_loaded(
    place: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(TrainError, match="fsdp cuts weights over processes, and there is one"):
        train(settings(place[0], fsdp=True), place[1], tmp_path / "run")
    with pytest.raises(ValueError, match="load_in_4bit or fsdp"):
        settings(place[0], fsdp=True, load_in_4bit=True)
    with pytest.raises(TrainError, match="launch without FSDP"):
        check(settings(place[0], load_in_4bit=True), 2)
    monkeypatch.setenv("FSDP_OFFLOAD_PARAMS", "true")
    with pytest.raises(TrainError, match="launcher sets fsdp_offload_params"):
        check(settings(place[0], fsdp=True), 2)
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    with pytest.raises(TrainError, match="DeepSpeed"):
        train(settings(place[0]), place[1], tmp_path / "run")


def test_a_plan_counts_every_token_that_the_run_will_read(
    place: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dpo_train import evaluation, reference
    from dpo_train.plan import estimate

    version = tiny.version(tmp_path, train=14, validation=5, test=3)
    config = settings(place[0], use_peft=False, dtype="float32", max_steps=3, eval_steps=2, probe_pairs=4, seed=1)
    expected = estimate(config, version)
    read = {"reference": 0, "evaluation": 0, "training": 0}
    scored = reference.scored

    def counted(policy: Any, pairs: Any, indices: Any, *rest: Any) -> Any:
        read["reference" if rest[1:] else "evaluation"] += int(pairs.lengths[indices].sum())
        return scored(policy, pairs, indices, *rest)

    def learned(pairs: Any, places: Any) -> None:
        read["training"] += int(pairs.lengths[places].sum())

    monkeypatch.setattr(reference, "scored", counted)
    monkeypatch.setattr(evaluation, "scored", counted)
    summary = train(config, version, tmp_path / "run", observe=learned)
    assert summary.best_step == summary.steps == expected["steps"]  # else validation is looked at once more
    assert read == {name: expected[f"{name}_tokens"] for name in read}
    assert expected["trained_parameters"] == sum(value.numel() for value in tiny.network().parameters())


def test_a_plan_says_what_it_does_not_know(place: tuple[Path, Path]) -> None:
    from dpo_train.plan import _not_counted
    from dpo_train.policy.policy import Policy

    policy = Policy(tiny.network(), tiny.tokenizer(), {"model": "tiny"}, torch.device("cpu"))
    assert not any("guess" in sentence for sentence in _not_counted(settings(place[0]), policy))
    policy.device = torch.device("cuda")
    assert any("on cuda it is a guess" in sentence for sentence in _not_counted(settings(place[0]), policy))


def test_unbalanced_thumbs_are_said_with_the_weight_that_balances_them(
    place: tuple[Path, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    version = tiny.unpaired_version(tmp_path)
    loss = {"loss_type": "apo_zero_unpaired", "desirable_weight": 3.0}
    with caplog.at_level(logging.WARNING):
        train(settings(place[0], loss=loss, max_steps=1), version, tmp_path / "run")
    # 13 desirable rows of weight 3, 12 undesirable: 39 / 12 = 3.25, and three quarters of that
    assert "Set undesirable_weight between 2.44 and 3.25" in caplog.text
