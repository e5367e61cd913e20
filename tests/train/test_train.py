"""The loop end to end on a model of a few thousand weights: what it promises, to the bit where it promises bits."""

import json
import math
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from helpers import tiny

from dpo_train import checkpoints
from dpo_train.config import TrainConfig, TrainError
from dpo_train.data.encoding import Encoder
from dpo_train.data.pairs import open_pairs
from dpo_train.early_stopping import Evaluation, candidates
from dpo_train.evaluation import evaluate
from dpo_train.gradients import add_gradient
from dpo_train.losses import Aot, Sigmoid
from dpo_train.policy.load import wrap
from dpo_train.reference import reference
from dpo_train.scoring import ReferencedPairs, Scoring
from dpo_train.train import train

settings = partial(tiny.settings, per_device_train_batch_size=5, num_train_epochs=2, eval_steps=2)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(model folder, version folder)"""
    root = tmp_path_factory.mktemp("store")
    return tiny.model_folder(root / "model"), tiny.version(root)


@pytest.fixture
def pairs_of_tiny(tmp_path: Path) -> Any:
    """(policy with live adapter dropout, pairs, their reference)"""
    pairs = open_pairs(tiny.version(tmp_path), "train", Encoder(tiny.tokenizer(), 400, "drop"), tmp_path / "cache")
    config = TrainConfig(use_cpu=True, lora_dropout=0.5)
    scorer = wrap(config, tiny.network(), tiny.tokenizer(), {"model": "tiny"}, torch.device("cpu"))
    for parameter in scorer.trainable().values():
        torch.nn.init.normal_(parameter, std=0.1)
    found = reference(scorer, pairs, np.arange(len(pairs)), tmp_path / "cache", 2000, tiny.ALONE)
    return scorer, pairs, found


def metrics(run: Path, kind: str) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [row for row in rows if row["kind"] == kind]


def test_margins_of_unseen_pairs_grow_from_exactly_zero(place: tuple[Path, Path], tmp_path: Path) -> None:
    model, version = place
    summary = train(settings(model), version, tmp_path / "run")
    held_out = metrics(tmp_path / "run", "eval")
    assert held_out[0]["step"] == 0
    assert held_out[0]["rewards/margins"] == 0
    assert held_out[0]["rewards/accuracies"] == 0.5
    assert held_out[0]["loss"] == pytest.approx(math.log(2), abs=1e-12)
    assert held_out[-1]["rewards/margins"] > 0.05
    assert summary.metrics["test"]["rewards/accuracies"] > 0.8
    log = pq.read_table(tmp_path / "run" / "pair_log.parquet").to_pandas()
    assert set(log["split"]) == {"validation", "train_probe", "test"}
    assert (log[log["step"] == 0]["margin"] == 0).all()


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # peft 0.21 asks by an old name
def test_the_adapter_opens_with_peft_and_scores_as_the_run_said(place: tuple[Path, Path], tmp_path: Path) -> None:
    from peft import AutoPeftModelForCausalLM

    from dpo_train.data.encoding import Encoder
    from dpo_train.data.pairs import open_pairs
    from dpo_train.policy.policy import Policy

    model, version = place
    summary = train(settings(model), version, tmp_path / "run")
    opened = AutoPeftModelForCausalLM.from_pretrained(tmp_path / "run" / summary.output)
    assert opened.peft_config["default"].base_model_name_or_path == str(model)
    pairs = open_pairs(version, "test", Encoder(tiny.tokenizer(), 1024, "drop"), version.parent.parent / "cache")
    scorer = Policy(opened.get_base_model(), tiny.tokenizer(), {"model": "tiny"}, torch.device("cpu"))
    with torch.no_grad():
        again = scorer.score(pairs.encoded(range(len(pairs))), "full_logits")
    assert again.chosen.mean().item() == pytest.approx(summary.metrics["test"]["logps/chosen"], abs=1e-3)


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # peft 0.21 asks by an old name
def test_a_merged_model_needs_no_adapter_and_scores_as_the_run_said(place: tuple[Path, Path], tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from dpo_train.policy.merge_adapter import merge
    from dpo_train.policy.policy import Policy

    model, version = place
    with pytest.raises(TrainError, match="only a finished run can be merged"):
        merge(tmp_path)
    summary = train(settings(model, use_dora=True), version, tmp_path / "run")
    folder = merge(tmp_path / "run")
    network, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    assert not any("lora" in name for name, _ in network.named_parameters())
    pairs = open_pairs(version, "test", Encoder(tokenizer, 1024, "drop"), tmp_path / "cache")
    with torch.no_grad():
        found = Policy(network, tokenizer, {"model": "merged"}, torch.device("cpu")).score(
            pairs.encoded(range(len(pairs)))
        )
    assert found.chosen.mean().item() == pytest.approx(summary.metrics["test"]["logps/chosen"], abs=1e-3)
    assert 'library_name: "transformers"' in (folder / "README.md").read_text()
    assert merge(tmp_path / "run") == folder


def test_the_kept_weights_are_the_earliest_that_cannot_be_told_from_the_best(
    place: tuple[Path, Path], tmp_path: Path
) -> None:
    model, version = place
    summary = train(settings(model, learning_rate=0.5, lr_scheduler_type="constant"), version, tmp_path / "run")
    by_step = {row["step"]: row["log_loss"] for row in metrics(tmp_path / "run", "eval")}
    best = min(by_step, key=lambda step: by_step[step])
    assert 0 < summary.best_step <= best
    assert summary.metrics["validation"]["log_loss"] == pytest.approx(by_step[summary.best_step], abs=1e-6)


def test_the_one_standard_error_rule_by_hand() -> None:
    def seen(step: int, *losses: float) -> Evaluation:
        return Evaluation(step, 0.0, np.zeros(3), np.array(losses))

    prompts = ["a", "b", "c"]
    start, rough = seen(0, 0.7, 0.7, 0.7), seen(2, 0.5, 0.5, 0.5)
    assert candidates([], start, prompts) == [start]
    assert candidates([start], rough, prompts) == [rough]  # better on every pair: no error excuses the start
    # differences from the new best: 0.06, 0, 0, mean 0.02, standard error 0.02: as good, so the earlier one stays
    close = seen(4, 0.44, 0.5, 0.5)
    assert candidates([rough], close, prompts) == [rough, close]
    # 0.06, 0.03, 0.03: mean 0.04, standard error 0.01
    clear = seen(6, 0.44, 0.47, 0.47)
    assert candidates([rough], clear, prompts) == [clear]
    assert candidates([start], seen(2, 0.1, 0.7, 0.7), prompts)[0].step == 2  # untrained only while nothing is better


def test_base_weights_are_untouched_by_adapter_training_and_moved_by_full_fine_tuning(
    place: tuple[Path, Path], tmp_path: Path
) -> None:
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM

    from dpo_train.policy.policy import fingerprint_of

    model, version = place
    before = (model / "model.safetensors").read_bytes()
    train(settings(model, max_steps=2), version, tmp_path / "adapter")
    assert (model / "model.safetensors").read_bytes() == before
    assert all("lora_" in name for name in load_file(tmp_path / "adapter" / "adapter" / "adapter_model.safetensors"))
    summary = train(settings(model, use_peft=False, learning_rate=1e-3), version, tmp_path / "full")
    assert summary.output == "model"
    assert summary.metrics["test"]["rewards/margins"] > 0.05
    kept = checkpoints.candidate(tmp_path / "full" / "checkpoints", summary.best_step)
    assert checkpoints.read_state(kept)["step"] == summary.best_step
    opened = AutoModelForCausalLM.from_pretrained(tmp_path / "full" / "model")
    assert fingerprint_of(opened) != fingerprint_of(AutoModelForCausalLM.from_pretrained(model))


def test_a_window_loss_has_the_gradient_of_its_window_however_cut(place: tuple[Path, Path], tmp_path: Path) -> None:
    model, version = place
    norms = []
    for name, budget in (("whole", 9999), ("cut", 1)):
        changes = {"loss": {"loss_type": "aot"}, "max_steps": 2, "token_budget": budget}
        train(settings(model, **changes), version, tmp_path / name)
        norms.append([row["grad_norm"] for row in metrics(tmp_path / name, "train")])
    assert norms[0] == pytest.approx(norms[1], rel=1e-4)


def test_flat_margins_stop_the_run_and_it_says_why(place: tuple[Path, Path], tmp_path: Path) -> None:
    model, version = place
    changes = {"learning_rate": 1e-2, "lr_scheduler_type": "constant", "num_train_epochs": 40, "stop_when_flat": True}
    summary = train(settings(model, **changes), version, tmp_path / "run")
    assert summary.steps < summary.planned_steps
    assert "held-out" in summary.stop_reason and "95 %" in summary.stop_reason


def test_settings_under_trls_flat_names_reach_the_loss_and_unknown_names_are_refused() -> None:
    nested = TrainConfig.model_validate({"loss": {"loss_type": "sigmoid", "beta": 0.3}})
    assert TrainConfig.model_validate({"beta": 0.3}).loss == nested.loss
    assert TrainConfig.model_validate({"loss_type": "ipo"}).loss.loss_type == "ipo"
    with pytest.raises(ValueError, match="label_smoothing"):
        TrainConfig.model_validate({"loss_type": "hinge", "label_smoothing": 0.1})
    with pytest.raises(ValueError, match="bta"):
        TrainConfig.model_validate({"bta": 0.3})


def test_the_observer_sees_every_pair_of_every_step_once(place: tuple[Path, Path], tmp_path: Path) -> None:
    model, version = place
    seen: list[int] = []
    train(
        settings(model, num_train_epochs=1, token_budget=150),
        version,
        tmp_path / "run",
        observe=lambda pairs, indices: seen.extend(indices.tolist()),
    )
    assert sorted(seen) == list(range(24))


def test_tensorboard_is_written_unless_told_otherwise(place: tuple[Path, Path], tmp_path: Path) -> None:
    model, version = place
    train(settings(model, max_steps=1, report_to=("tensorboard",)), version, tmp_path / "run")
    assert list((tmp_path / "run").rglob("events.out.tfevents*"))
    (told,) = (tmp_path / "run").rglob("hparams.yml")
    assert "loss.beta: 0.1" in told.read_text() and "learning_rate: 0.005" in told.read_text()


@pytest.mark.filterwarnings("ignore")  # the trackers' own
@pytest.mark.parametrize(
    ("tracker", "file"), [("wandb", "run/wandb/**/*.wandb"), ("mlflow", "mlflow.db"), ("trackio", "trackio/dpo.db")]
)
def test_a_tracker_that_is_installed_gets_the_run_without_a_network(
    place: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tracker: str, file: str
) -> None:
    if find_spec(tracker) is None:  # not imported yet: trackio reads its folder as it is
        pytest.skip(f"{tracker} is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    train(settings(place[0], max_steps=1, report_to=(tracker,)), place[1], tmp_path / "run")
    (kept,) = tmp_path.glob(file)
    assert b"learning_rate" in kept.read_bytes()


def test_a_model_that_cannot_be_opened_is_named_with_what_would_do(place: tuple[Path, Path], tmp_path: Path) -> None:
    _, version = place
    with pytest.raises(TrainError, match=r"no-such-model.*Expected"):
        train(TrainConfig(model="./no-such-model", use_cpu=True), version, tmp_path / "run")
    with pytest.raises(TrainError, match="is not a file"):
        train(TrainConfig(model="x.gguf", use_cpu=True), version, tmp_path / "run2")
    with pytest.raises(TrainError, match="version nowhere is not there"):
        train(settings(place[0]), tmp_path / "nowhere", tmp_path / "run3")


def test_a_plan_counts_what_the_run_will_do_and_trains_nothing(place: tuple[Path, Path], tmp_path: Path) -> None:
    from dpo_train.plan import estimate

    model, version = place
    expected = estimate(settings(model), version)
    summary = train(settings(model), version, tmp_path / "run")
    assert expected["steps"] == summary.planned_steps == 10
    assert expected["evaluations"] == 5
    assert expected["pairs"] == summary.pairs["train"] == 24
    assert expected["minutes"] >= 0 and expected["memory_gb"] > 0


def test_without_held_out_pairs_the_last_weights_are_kept_and_the_run_says_so(
    place: tuple[Path, Path], tmp_path: Path
) -> None:
    version = tiny.write_version(tmp_path / "v", {"train": [tiny.row(k) for k in range(6)]})
    summary = train(settings(place[0], probe_pairs=0), version, tmp_path / "run")
    assert summary.best_step == summary.steps == 4
    assert "no validation pairs" in summary.notes[0]


def test_a_window_losss_numbers_do_not_depend_on_the_forward_passes_nor_on_dropout(
    place: tuple[Path, Path], tmp_path: Path
) -> None:
    model, version = place
    seen = []
    for name, budget in (("whole", 9999), ("cut", 1)):
        changes = {"loss": {"loss_type": "aot"}, "max_steps": 4, "token_budget": budget}
        train(settings(model, **changes), version, tmp_path / name)
        seen.append([row["loss"] for kind in ("train", "eval") for row in metrics(tmp_path / name, kind)])
    assert seen[0] == pytest.approx(seen[1], rel=1e-5)


def test_a_window_loss_with_dropout_pulls_back_through_the_dropout_it_measured(pairs_of_tiny: Any) -> None:
    """With one pair a window, aot is sigmoid: the two gradients agree only if both passes drop the same."""
    scorer, pairs, found = pairs_of_tiny
    gradients = []
    for loss in (Sigmoid(), Aot()):
        torch.manual_seed(3)
        add_gradient(Scoring(loss, scorer, 999, tiny.ALONE), ReferencedPairs(pairs, found), np.array([1]))
        grads = [value.grad for value in scorer.trainable().values() if value.grad is not None]
        gradients.append(torch.cat([grad.flatten() for grad in grads]))
        for value in scorer.trainable().values():
            value.grad = None
    torch.testing.assert_close(gradients[0], gradients[1])


def test_a_gradient_that_is_not_finite_stops_the_run_before_the_weights_are_touched(
    place: tuple[Path, Path], tmp_path: Path
) -> None:
    from safetensors.torch import load_file

    model, version = place
    run = tmp_path / "run"
    count = 0

    def spoil(pairs: Any, _: Any) -> None:
        nonlocal count
        count += 1
        if count > 3:
            pairs.weights[:] = math.inf

    with pytest.raises(TrainError, match=r"gradient of step \d is (nan|inf).*learning_rate \(0\.005\).*step-0000000"):
        train(settings(model, save_steps=1, token_budget=9999), version, run, observe=spoil)
    kept = load_file((checkpoints.latest(run / "checkpoints") or Path()) / "weights.safetensors")
    assert all(bool(torch.isfinite(value).all()) for value in kept.values())


def test_running_out_of_memory_names_the_setting_and_the_number(pairs_of_tiny: Any) -> None:
    scorer, pairs, found = pairs_of_tiny
    longest = int(pairs.lengths.max())

    def full(*_: Any) -> None:
        raise torch.OutOfMemoryError("tried to allocate 2 GiB")

    scorer.score = full
    every = np.arange(len(pairs))
    with pytest.raises(TrainError, match=r"Set token_budget to 1000 .*2 GiB"):
        add_gradient(Scoring(Sigmoid(), scorer, 2000, tiny.ALONE), ReferencedPairs(pairs, found), every)
    with pytest.raises(TrainError, match=rf"single row of {longest} tokens .* max_length to {longest // 2}"):
        evaluate(Scoring(Sigmoid(), scorer, longest, tiny.ALONE), ReferencedPairs(pairs, found), every)


def test_a_run_that_only_gets_worse_keeps_its_start_and_says_so(place: tuple[Path, Path], tmp_path: Path) -> None:
    rows = [tiny.row(k) for k in range(12)]
    backwards = [
        {**row, "chosen": row["rejected"], "rejected": row["chosen"]}
        for row in (tiny.row(k, "validation") for k in range(1000, 1008))
    ]
    version = tiny.write_version(tmp_path / "v", {"train": rows, "validation": backwards})
    summary = train(settings(place[0]), version, tmp_path / "run")
    assert summary.best_step == 0
    assert any("untrained weights are kept" in alarm for alarm in summary.alarms)


def test_a_loss_given_as_an_object_takes_trls_flat_knobs_and_two_opinions_are_refused() -> None:
    assert TrainConfig.model_validate({"loss": Sigmoid(), "beta": 0.2}).loss == Sigmoid(beta=0.2)
    flat = {"loss_type": "discopop", "discopop_tau": 0.1}
    assert TrainConfig.model_validate(flat).loss.model_dump()["discopop_tau"] == 0.1
    with pytest.raises(ValueError, match="beta given twice"):
        TrainConfig.model_validate({"loss": Sigmoid(beta=0.1), "beta": 0.2})


def test_float16_is_refused_where_a_launcher_asks_for_it(
    place: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "fp16")
    with pytest.raises(TrainError, match=r"mixed precision fp16.*--mixed_precision no"):
        train(settings(place[0]), place[1], tmp_path / "run")


def test_a_trainer_that_ran_before_in_this_process_does_not_decide_the_precision(
    place: tuple[Path, Path], tmp_path: Path
) -> None:
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state()
    assert Accelerator(cpu=True, mixed_precision="bf16").state.mixed_precision == "bf16"
    train(settings(place[0], max_steps=1), place[1], tmp_path / "run")
    assert AcceleratorState().mixed_precision == "no"


def test_pairs_without_confidence_are_counted_where_soft_labels_read_it(
    place: tuple[Path, Path], tmp_path: Path
) -> None:
    rows = [tiny.row(k, confidence=None if k < 2 else 0.8) for k in range(6)]
    version = tiny.write_version(tmp_path / "v", {"train": rows})
    config = settings(place[0], loss={"loss_type": "sigmoid", "soft_labels": True}, max_steps=1)
    summary = train(config, version, tmp_path / "run")
    assert any("2 of 6 training pairs have no confidence" in note for note in summary.notes)


def test_a_run_shorter_than_an_epoch_scores_only_the_pairs_it_takes(place: tuple[Path, Path], tmp_path: Path) -> None:
    version = tiny.write_version(tmp_path / "v", {"train": [tiny.row(k) for k in range(24)]})
    train(settings(place[0], max_steps=2, probe_pairs=0), version, tmp_path / "run")
    parts = (tmp_path / "run" / "cache" / "reference").rglob("*.parquet")
    assert sum(pq.read_metadata(part).num_rows for part in parts) == 10


def test_library_bars_stay_out_of_logs_and_are_put_back(
    place: tuple[Path, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    import datasets
    from transformers.utils import logging

    before = logging.is_progress_bar_enabled(), datasets.are_progress_bars_disabled()
    train(settings(place[0], max_steps=1, use_peft=False), place[1], tmp_path / "run")
    assert "it/s" not in capfd.readouterr().err
    assert (logging.is_progress_bar_enabled(), datasets.are_progress_bars_disabled()) == before


def test_the_card_names_data_settings_and_held_out_results(place: tuple[Path, Path], tmp_path: Path) -> None:
    model, version = place
    summary = train(settings(model, max_steps=2), version, tmp_path / "run")
    card = (tmp_path / "run" / "adapter" / "README.md").read_text()
    assert f"| `data version` | `{version.name}` |" in card
    assert f"| `test` | `{summary.metrics['test']['rewards/accuracies']:.4f}` |" in card
    assert '"learning_rate": 0.005' in card
    assert str(model) in card
    assert f"| `fingerprint of weights` | `{summary.reference['weights']}` |" in card


def test_preflight_says_how_likely_the_answers_are_to_the_starting_weights(
    place: tuple[Path, Path], tmp_path: Path
) -> None:
    model, version = place
    train(settings(model, max_steps=1), version, tmp_path / "run")
    found = json.loads((tmp_path / "run" / "preflight.json").read_text())["validation"]["reference_nats_per_token"]
    log = pq.read_table(tmp_path / "run" / "pair_log.parquet").to_pandas()
    rows = log[(log["split"] == "validation") & (log["step"] == 0)]
    assert found["chosen"] == pytest.approx(rows["ref_logp_chosen"].sum() / rows["tokens_chosen"].sum())
