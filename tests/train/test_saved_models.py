"""What a run saves scores as the run did, for whoever opens it; and what it cannot start from is refused in words."""

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from helpers import tiny
from transformers import AutoModelForCausalLM, AutoTokenizer

from dpo_train.config import TrainError
from dpo_train.plan import estimate
from dpo_train.policy import saved
from dpo_train.policy.merge_adapter import merge
from dpo_train.progress import quiet_peft
from dpo_train.train import RunSummary, train

settings = partial(tiny.settings, load_best_model_at_end=False)
ROOT = Path(__file__).resolve().parents[2]


def scored(network: Any, tokenizer: Any, rows: list[dict[str, Any]]) -> torch.Tensor:
    """Log-probabilities of both responses (pairs, 2), by hand: one unpadded text at a time, float64 softmax."""
    found = []
    for row in rows:
        prompt = tokenizer.apply_chat_template(row["prompt"], add_generation_prompt=True, return_dict=False)
        for side in ("chosen", "rejected"):
            answer = tokenizer(row[side][0]["content"] + "<|im_end|>", add_special_tokens=False)["input_ids"]
            tokens = torch.tensor([[*prompt, *answer]])
            with torch.no_grad():
                logps = network(input_ids=tokens).logits[0, :-1].double().log_softmax(-1)
            found.append(logps.gather(1, tokens[0, 1:, None])[len(prompt) - 1 :].sum())
    return torch.stack(found).reshape(-1, 2)


def held_out() -> list[dict[str, Any]]:
    return [tiny.row(number, "test") for number in range(2000, 2006)]


def off(summary: RunSummary, network: Any, tokenizer: Any) -> float:
    """How far the means over test pairs are from those that the run measured, in nats."""
    chosen, rejected = scored(network.eval(), tokenizer, held_out()).mean(0).tolist()
    said = summary.metrics["test"]
    return max(abs(chosen - said["logps/chosen"]), abs(rejected - said["logps/rejected"]))


@pytest.mark.parametrize("targets", [("q_proj", "lm_head"), ("q_proj", "embed_tokens"), ("embed_tokens", "lm_head")])
def test_adapters_on_a_tied_embedding_merge_into_separate_weights(tmp_path: Path, targets: tuple[str, ...]) -> None:
    model, version = tiny.model_folder(tmp_path / "model", tie_word_embeddings=True), tiny.version(tmp_path)
    summary = train(settings(model, max_steps=6, lora_target_modules=targets), version, tmp_path / "run")
    merged = AutoModelForCausalLM.from_pretrained(merge(tmp_path / "run"))
    assert not merged.config.tie_word_embeddings
    assert off(summary, merged, tiny.tokenizer()) < 1e-3
    assert off(summary, AutoModelForCausalLM.from_pretrained(model), tiny.tokenizer()) > 0.1


def test_a_tied_model_with_adapters_elsewhere_stays_tied(tmp_path: Path) -> None:
    model, version = tiny.model_folder(tmp_path / "model", tie_word_embeddings=True), tiny.version(tmp_path)
    summary = train(settings(model, max_steps=3), version, tmp_path / "run")
    merged = AutoModelForCausalLM.from_pretrained(merge(tmp_path / "run"))
    assert merged.config.tie_word_embeddings and off(summary, merged, tiny.tokenizer()) < 1e-3


@pytest.mark.parametrize(("rate", "steps", "margin"), [(2e-5, 20, 0.01233), (1e-4, 20, 0.06268)])
def test_merging_keeps_a_small_update_of_a_bfloat16_model(
    tmp_path: Path, rate: float, steps: int, margin: float
) -> None:
    tiny.network(0, torch.bfloat16).save_pretrained(tmp_path / "model")
    tiny.tokenizer().save_pretrained(tmp_path / "model")
    version = tiny.version(tmp_path)
    config = settings(tmp_path / "model", max_steps=steps, learning_rate=rate)
    summary = train(config, version, tmp_path / "run")
    assert summary.metrics["test"]["rewards/margins"] == pytest.approx(margin, rel=0.01)
    base, merged = (
        scored(AutoModelForCausalLM.from_pretrained(folder).float().eval(), tiny.tokenizer(), held_out())
        for folder in (tmp_path / "model", merge(tmp_path / "run"))
    )
    moved = merged - base
    assert float(0.1 * (moved[:, 0] - moved[:, 1]).mean()) == pytest.approx(margin, rel=0.01)


@pytest.mark.parametrize("family", [{}, {"family": "mixtral", "num_local_experts": 4}], ids=["dense", "experts"])
def test_a_run_in_bfloat16_merges_as_its_adapter_scores_unrounded(tmp_path: Path, family: dict[str, Any]) -> None:
    from peft import PeftModel

    model, version = tiny.model_folder(tmp_path / "model", **family), tiny.version(tmp_path)
    config = settings(model, max_steps=3, dtype="bfloat16", lora_target_modules="all-linear")
    train(config, version, tmp_path / "run")
    with quiet_peft():
        adapter = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(model), tmp_path / "run" / "adapter")
    unmerged = scored(adapter.eval(), tiny.tokenizer(), held_out())
    merged = AutoModelForCausalLM.from_pretrained(merge(tmp_path / "run")).eval()
    assert merged.dtype == torch.float32
    assert float((scored(merged, tiny.tokenizer(), held_out()) - unmerged).abs().max()) < 1e-3


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_base_that_changed_since_the_run_is_not_merged_into(tmp_path: Path, dtype: str) -> None:
    model, version = tiny.model_folder(tmp_path / "model"), tiny.version(tmp_path)
    train(settings(model, max_steps=2, dtype=dtype), version, tmp_path / "run")
    tiny.model_folder(model, seed=3)  # trained anew under its name
    with pytest.raises(TrainError, match=r"not what the run measured.*validation-\d+ .* where the run measured -"):
        merge(tmp_path / "run")
    assert sorted(path.name for path in (tmp_path / "run").glob("*model*")) == []
    tiny.model_folder(model)
    assert merge(tmp_path / "run") == tmp_path / "run" / "model"


def with_tokens(folder: Path, *added: str) -> Any:
    """A tiny model whose tokenizer has tokens that the model has no row for."""
    tiny.network(0).save_pretrained(folder)
    tokenizer = tiny.tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": list(added)})
    tokenizer.save_pretrained(folder)
    return tokenizer


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
@pytest.mark.parametrize("count", [1, 30])
def test_a_longer_tokenizer_adds_no_rows_to_what_is_saved(tmp_path: Path, count: int) -> None:
    from peft import AutoPeftModelForCausalLM

    tokenizer = with_tokens(tmp_path / "model", *(f"<extra_{number}>" for number in range(count)))
    summary = train(settings(tmp_path / "model", max_steps=4), tiny.version(tmp_path), tmp_path / "run")
    assert [note for note in summary.notes if f"has {258 + count} tokens and the model rows for 258" in note]
    merged = merge(tmp_path / "run")
    for network in (
        AutoPeftModelForCausalLM.from_pretrained(tmp_path / "run" / "adapter"),
        AutoModelForCausalLM.from_pretrained(merged),
    ):
        assert network.get_input_embeddings().weight.shape[0] == 258
        assert off(summary, network, tokenizer) < 1e-3
    assert len(AutoTokenizer.from_pretrained(merged)) == 258 + count


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_a_token_without_a_row_is_refused_with_its_pair(tmp_path: Path, split: str) -> None:
    with_tokens(tmp_path / "model", "<tool>")
    rows = {name: [tiny.row(number, name) for number in range(8)] for name in ("train", "validation", "test")}
    rows[split][5]["rejected"] = [{"role": "assistant", "content": "a <tool>look</tool>"}]
    version = tiny.write_version(tmp_path / "versions" / "v", rows)
    with pytest.raises(TrainError, match=rf"{split}: pair {split}-0005 has token 258 \('<tool>'\).*0 to 257"):
        train(settings(tmp_path / "model"), version, tmp_path / "run")
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_a_merged_model_is_compared_to_a_thousandth_of_a_nat(tmp_path: Path) -> None:
    train(settings(tiny.model_folder(tmp_path / "model"), max_steps=2), tiny.version(tmp_path), tmp_path / "run")
    whole = json.loads((tmp_path / "run" / saved.NAME).read_text())
    assert len(whole["pairs"]) == saved.PAIRS and {row["pair_id"][:5] for row in whole["pairs"]} == {"valid"}
    whole["pairs"][2]["rejected"] += 2e-3
    saved.write(tmp_path / "run", whole)
    with pytest.raises(TrainError, match=f"rejected response of pair {whole['pairs'][2]['pair_id']} has -"):
        merge(tmp_path / "run")
    whole["pairs"][2]["rejected"] -= 1.5e-3
    saved.write(tmp_path / "run", whole)
    assert merge(tmp_path / "run").is_dir()


def test_damaged_weights_are_refused_in_words(tmp_path: Path) -> None:
    model, version = tiny.model_folder(tmp_path / "model"), tiny.version(tmp_path)
    train(settings(model, max_steps=1), version, tmp_path / "run")
    for weights in (tmp_path / "run" / "adapter" / "adapter_model.safetensors", model / "model.safetensors"):
        weights.write_bytes(weights.read_bytes()[:-40])
        with pytest.raises(TrainError, match="it or its base model could not be opened"):
            merge(tmp_path / "run")
    with pytest.raises(TrainError, match="could not be opened"):
        train(settings(model), version, tmp_path / "other")


@pytest.mark.parametrize("tied", [False, True])
def test_all_weights_that_were_trained_open_as_they_were_measured(tmp_path: Path, tied: bool) -> None:
    tiny.network(0, torch.bfloat16, tie_word_embeddings=tied).save_pretrained(tmp_path / "model")
    tiny.tokenizer().save_pretrained(tmp_path / "model")
    config = settings(tmp_path / "model", max_steps=4, use_peft=False, learning_rate=1e-4)
    summary = train(config, tiny.version(tmp_path), tmp_path / "run")
    assert off(summary, AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "model"), tiny.tokenizer()) < 1e-3


def test_single_responses_without_held_out_rows_are_compared_too(tmp_path: Path) -> None:
    model, version = tiny.model_folder(tmp_path / "model"), tiny.unpaired_version(tmp_path)
    for shard in [*version.glob("unpaired/validation-*"), *version.glob("unpaired/test-*")]:
        shard.unlink()
    train(settings(model, max_steps=2, loss_type="apo_zero_unpaired", probe_pairs=0), version, tmp_path / "run")
    [row] = json.loads((tmp_path / "run" / saved.NAME).read_text())["pairs"]
    assert sorted(map(bool, row["tokens"][1:])) == [False, True]
    assert merge(tmp_path / "run").is_dir()


STARTS = {
    "same settings": {},
    "other rank": {"lora_r": 4},
    "other targets": {"lora_target_modules": ("o_proj", "gate_proj")},
    "all weights": {"use_peft": False, "learning_rate": 1e-3},
}


@pytest.fixture(scope="module")
def run_of_adapter(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("start")
    version = tiny.version(root)
    train(settings(tiny.model_folder(root / "model"), max_steps=1), version, root / "sft")
    return root / "sft", version


@pytest.mark.parametrize("start", STARTS)
def test_an_adapter_as_model_is_refused_before_anything_is_scored(
    run_of_adapter: tuple[Path, Path], tmp_path: Path, start: str
) -> None:
    run, version = run_of_adapter
    config = settings(run / "adapter", max_steps=2, **STARTS[start])
    base = str(run.parent / "model")
    for ask in (lambda: train(config, version, tmp_path / "run"), lambda: estimate(config, version)):
        with pytest.raises(TrainError, match=f"is an adapter of {base!r}, expected a whole model.*merge it first"):
            ask()
    assert not [path for path in (tmp_path / "run").glob("*") if path.name != "claim.json"]


def test_an_adapter_as_model_points_to_the_merged_folder(run_of_adapter: tuple[Path, Path], tmp_path: Path) -> None:
    run, version = run_of_adapter
    merged = merge(run)
    with pytest.raises(TrainError, match=f"set model to {str(merged)!r}, where it is merged already"):
        train(settings(run / "adapter"), version, tmp_path / "run")
    with (tmp_path / "metrics.jsonl").open("w"):
        summary = train(settings(merged, max_steps=1), version, tmp_path / "run")
    assert summary.base["folder"] == str(merged)


def dpo(*args: str, cwd: Path) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "DPO_DEBUG": "", "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "flows.cli.app", *args]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment)


def project(folder: Path, model: str, **training: Any) -> list[str]:
    """A recipe over 60 easy pairs, and the arguments that name it and its store."""
    rows = [
        {
            "prompt": [{"role": "user", "content": f"Question {number * 37}: what holds in place {number}?"}],
            "chosen": [{"role": "assistant", "content": f"It holds, {number}." + "!" * (number % 3)}],
            "rejected": [{"role": "assistant", "content": "No idea " * (1 + number % 4) + str(number)}],
        }
        for number in range(60)
    ]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    short = {"use_cpu": True, "max_steps": 2, "eval_steps": 1, "report_to": [], "probe_pairs": 8, "learning_rate": 5e-3}
    splits = {"train": 0.6, "validation": 0.2, "test": 0.2}
    recipe = {
        "sources": [{"name": "pairs", "path": "pairs.jsonl"}],
        "curation": {"tokenizer": None, "embedding_model": None, "slices": [], "splits": splits},
        "executor": {"kind": "inline"},
        "training": {"model": model, **short, **training},
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return ["--recipe", str(folder / "recipe.yaml"), "--store", str(folder / "store"), "--no-prefect", "--json"]


def test_a_model_beside_the_recipe_is_found_and_merged_from_anywhere(tmp_path: Path) -> None:
    tiny.model_folder(tmp_path / "models" / "base")
    place, elsewhere = project(tmp_path, "models/base"), tmp_path / "elsewhere"
    elsewhere.mkdir()
    assert dpo("refresh", *place, cwd=elsewhere).returncode == 0
    first = dpo("train", *place, cwd=elsewhere)
    assert first.returncode == 0, first.stderr
    run = json.loads(first.stdout)
    adapter = json.loads((Path(run["path"]) / "adapter" / "adapter_config.json").read_text())
    assert adapter["base_model_name_or_path"] == str(tmp_path / "models" / "base")
    merged = dpo("train", "--merge", *place, cwd=tmp_path)
    assert merged.returncode == 0, merged.stderr
    again = json.loads(merged.stdout)
    assert (again["run"], again["created"]) == (run["run"], False)
    assert (Path(again["merged"]) / "model.safetensors").is_file()

    asked = dpo("train", "--merge", *place, "--set", f"training.model={run['path']}/adapter", cwd=elsewhere)
    assert asked.returncode == 1
    assert f"is an adapter of {str(tmp_path / 'models' / 'base')!r}" in asked.stderr
    assert f"set model to {again['merged']!r}" in asked.stderr
    assert len(list((tmp_path / "store" / "runs").iterdir())) == 1
