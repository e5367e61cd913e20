"""Models that once could not be opened or trained, models that must not be, and errors that name their true cause."""

import json
import math
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import tiny
from torch import nn

from dpo_train.config import TrainError
from dpo_train.policy.optimizer import optimizer_of, undecayed
from dpo_train.train import train

settings = partial(tiny.settings, max_steps=2)
GEMMA4 = {
    "head_dim": 16,
    "global_head_dim": 32,
    "vocab_size_per_layer_input": 258,
    "hidden_size_per_layer_input": 8,
    "sliding_window": 512,
    "layer_types": ["sliding_attention", "full_attention"],
    "num_kv_shared_layers": 0,
}
GEMMA3N = {
    "head_dim": 16,
    "vocab_size_per_layer_input": 258,
    "hidden_size_per_layer_input": 8,
    "layer_types": ["sliding_attention", "full_attention"],
    "sliding_window": 512,
    "num_kv_shared_layers": 0,
    "laurel_rank": 4,
    "activation_sparsity_pattern": [0.0, 0.0],
    "intermediate_size": [64, 64],
}


def by_hand(network: Any, version: Path) -> float:
    """Mean log-probability of chosen validation responses: one unpadded sequence at a time, float64 softmax."""
    tokenizer, total = tiny.tokenizer(), []
    for number in range(1000, 1008):
        row = tiny.row(number, "validation")
        prompt = f"<|im_start|>user\n{row['prompt'][0]['content']}<|im_end|>\n<|im_start|>assistant\n"
        texts = prompt, row["chosen"][0]["content"] + "<|im_end|>"
        before, answer = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts)
        ids = torch.tensor([[*before, *answer]])
        with torch.no_grad():
            logps = network(input_ids=ids, use_cache=False).logits[0, :-1].double().log_softmax(-1)
        total.append(logps.gather(1, ids[0, 1:, None]).squeeze(1)[len(before) - 1 :].sum())
    return float(torch.stack(total).mean())


@pytest.mark.parametrize("full", [False, True], ids=["adapter", "full"])
@pytest.mark.parametrize(("family", "sizes"), [("gemma4_text", GEMMA4), ("gemma3n_text", GEMMA3N)])
def test_gemma_4_and_3n_train_and_score_as_their_own_forward_pass(
    tmp_path: Path, family: str, sizes: dict[str, Any], full: bool
) -> None:
    model = tiny.model_folder(tmp_path / "model", family=family, **sizes)
    version = tiny.version(tmp_path)
    changes = {"use_peft": False, "learning_rate": 1e-3} if full else {}
    train(settings(model, **changes), version, tmp_path / "run")
    first = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[0])
    network = tiny.network(family=family, **sizes)
    assert first["kind"] == "eval" and first["logps/chosen"] == pytest.approx(by_hand(network, version), abs=5e-4)


@pytest.mark.parametrize("family", ["bert", "electra", "roberta"])
def test_a_model_whose_earlier_logits_see_later_tokens_is_refused(tmp_path: Path, family: str) -> None:
    model = tiny.model_folder(tmp_path / "model", family=family, max_position_embeddings=600)
    with pytest.raises(TrainError, match=r"is no causal language model.*Expected a decoder"):
        train(settings(model, lora_target_modules="all-linear"), tiny.version(tmp_path), tmp_path / "run")


@pytest.mark.parametrize(
    "method",
    [{"quant_method": "bitsandbytes", "load_in_4bit": True}, {"quant_method": "gptq", "bits": 4, "group_size": 8}],
)
def test_a_quantised_folder_without_its_package_is_refused_in_words(tmp_path: Path, method: dict[str, Any]) -> None:
    model = tiny.model_folder(tmp_path / "model")
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "quantization_config": method}))
    with pytest.raises(TrainError, match="needs a package that is not installed"):
        train(settings(model), tiny.version(tmp_path), tmp_path / "run")


def test_the_name_of_one_layer_is_a_target_as_a_list_of_it_is(tmp_path: Path) -> None:
    model, version = tiny.model_folder(tmp_path / "model"), tiny.version(tmp_path)
    one = train(settings(model, lora_target_modules="q_proj"), version, tmp_path / "one")
    two = train(settings(model, lora_target_modules=("q_proj",)), version, tmp_path / "two")
    assert one.metrics == two.metrics
    with pytest.raises(TrainError, match=r"'nowhere'.*do not fit.*layers are called down_proj, .*q_proj"):
        train(settings(model, lora_target_modules="nowhere"), version, tmp_path / "three")


def test_dropout_on_fused_experts_blames_dropout(tmp_path: Path) -> None:
    model = tiny.model_folder(tmp_path / "model", family="mixtral", num_local_experts=4, sliding_window=None)
    config = settings(model, lora_target_modules="all-linear", lora_dropout=0.1)
    with pytest.raises(TrainError, match=r"^lora_dropout 0.1 does not fit.*k_proj, o_proj"):
        train(config, tiny.version(tmp_path), tmp_path / "run")


def test_named_templates_without_a_default_are_named(tmp_path: Path) -> None:
    model = tiny.model_folder(tmp_path / "model")
    (model / "chat_template.jinja").unlink(missing_ok=True)
    tokenizer = tiny.tokenizer()
    tokenizer.chat_template = {"rag": tiny.CHATML, "tool_use": tiny.CHATML}
    tokenizer.save_pretrained(model)
    with pytest.raises(TrainError, match=r"several chat templates \((rag, tool_use|tool_use, rag)\)"):
        train(settings(model), tiny.version(tmp_path), tmp_path / "run")


def test_a_router_that_wants_balance_is_reported(tmp_path: Path) -> None:
    balance = {"output_router_logits": True, "router_aux_loss_coef": 0.5}
    model = tiny.model_folder(tmp_path / "model", family="mixtral", num_local_experts=4, sliding_window=None, **balance)
    summary = train(settings(model), tiny.version(tmp_path), tmp_path / "run")
    assert "router_aux_loss_coef 0.5" in " ".join(summary.notes)
    first = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert next(row["loss"] for row in first if row["kind"] == "train") == pytest.approx(math.log(2), abs=1e-12)


def test_norms_and_biases_are_not_decayed(tmp_path: Path) -> None:
    """Pairs of weight 0: nothing but the decay moves a weight."""
    model = tiny.model_folder(tmp_path / "model", attention_bias=True)
    rows = {"train": [tiny.row(k, weight=0.0) for k in range(12)], "validation": [tiny.row(1000, "validation")]}
    version = tiny.write_version(tmp_path / "versions" / "v", rows)
    changes = {"use_peft": False, "weight_decay": 0.1, "learning_rate": 1e-2, "warmup_ratio": 0}
    steady = {"lr_scheduler_type": "constant", "load_best_model_at_end": False}
    train(settings(model, **changes, **steady), version, tmp_path / "run")
    before, after = tiny.network(attention_bias=True), opened(tmp_path / "run" / "model")
    for (name, old), new in zip(before.named_parameters(), after.parameters(), strict=True):
        expected = 1.0 if "norm" in name or "bias" in name else (1 - 1e-2 * 0.1) ** 2
        torch.testing.assert_close(new, old * expected, rtol=1e-6, atol=0, msg=name)


def opened(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder)


def test_what_is_decayed_is_what_transformers_decays() -> None:
    from transformers import Trainer

    for family, sizes in (("llama", {"attention_bias": True}), ("gpt2", {}), ("opt", {"word_embed_proj_dim": 32})):
        network = tiny.network(family=family, **sizes)
        parameters = dict(network.named_parameters())
        decayed = set(Trainer.get_decay_parameter_names(None, network))
        assert set(parameters) - undecayed(network, parameters) == decayed & set(parameters)


def test_without_decay_there_is_one_group_of_parameters(tmp_path: Path) -> None:
    network: nn.Module = tiny.network()
    parameters = dict(network.named_parameters())
    assert len(optimizer_of(tiny.settings(tmp_path), network, parameters).param_groups) == 1
    decaying = tiny.settings(tmp_path, weight_decay=0.1)
    groups = optimizer_of(decaying, network, parameters).param_groups
    assert [group["weight_decay"] for group in groups] == [0.1, 0.0]
    assert sum(len(group["params"]) for group in groups) == len(parameters)
