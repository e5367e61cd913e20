"""The shards as they lie: `datasets` opens them, and TRL's DPOTrainer and KTOTrainer train on them without a map."""

from pathlib import Path
from typing import Any

import pytest
from helpers.planted_version import config, ledger_of, many, plant_store

from dpo_data import schema
from dpo_data.publish import publish_version
from dpo_data.release.shards import ShardSettings
from dpo_data.schema import SLICE_COLUMNS
from dpo_data.store import versions

QUICK: dict[str, Any] = {
    **{"max_steps": 2, "learning_rate": 1e-3, "logging_steps": 1, "use_cpu": True},
    **{"report_to": [], "save_strategy": "no", "disable_tqdm": True},
}
pytestmark = pytest.mark.filterwarnings("ignore")  # third-party code; ours is held to no warnings elsewhere


@pytest.fixture(scope="module")
def version(tmp_path_factory: pytest.TempPathFactory) -> versions.Version:
    rows = many(40)
    store = plant_store(tmp_path_factory.mktemp("store"), rows)
    cut = ShardSettings(rows_per_shard=15, row_group_rows=4)
    return publish_version(store, ledger_of(rows), config(), shard_settings=cut)


def load(version: versions.Version, folder: str, cache: Path) -> Any:
    from datasets import load_dataset

    splits = ("train", "validation", "test")
    files = {split: str(version.path / folder / f"{split}-*.parquet") for split in splits}
    return load_dataset("parquet", data_files=files, cache_dir=str(cache))


def tiny_model(folder: Path) -> tuple[str, Any]:
    """A two-layer Llama of 16 dimensions, saved, and a byte-level tokenizer with a chat template."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    symbols = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {symbol: i for i, symbol in enumerate(["<pad>", "<eos>", *symbols])}
    raw = Tokenizer(models.BPE(vocabulary, []))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="<pad>", eos_token="<eos>")
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}"
        "{% if m['role'] == 'assistant' %}{{ eos_token }}{% endif %}\n{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    LlamaForCausalLM(LlamaConfig(vocab_size=len(vocabulary), max_position_embeddings=512, **shape)).save_pretrained(
        folder
    )
    return str(folder), tokenizer


def test_datasets_opens_the_shards_with_every_column_in_plain_types(version: versions.Version, tmp_path: Path) -> None:
    pairs = load(version, "pairs", tmp_path)
    assert sum(part.num_rows for part in pairs.values()) == 40
    assert pairs["train"].column_names == [*schema.PAIRS, *SLICE_COLUMNS, "category"]
    row = pairs["train"][0]
    assert [message["role"] for message in row["prompt"] + row["chosen"] + row["rejected"]] == [
        *("user", "assistant", "assistant")
    ]
    kinds = {str(feature.dtype) for feature in pairs["train"].features.values() if hasattr(feature, "dtype")}
    assert not any("large" in kind for kind in kinds)
    halves = load(version, "unpaired", tmp_path)
    assert sum(part.num_rows for part in halves.values()) == 80


def test_trl_trains_dpo_on_the_pairs_as_they_are(version: versions.Version, tmp_path: Path) -> None:
    from trl import DPOConfig, DPOTrainer

    pairs = load(version, "pairs", tmp_path)
    model, tokenizer = tiny_model(tmp_path / "model")
    settings = DPOConfig(output_dir=str(tmp_path / "run"), per_device_train_batch_size=4, **QUICK)
    trainer = DPOTrainer(
        model, args=settings, train_dataset=pairs["train"], eval_dataset=pairs["validation"], processing_class=tokenizer
    )
    assert len(trainer.train_dataset) == pairs["train"].num_rows
    trainer.train()
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    assert len(losses) == 2 and losses[0] == pytest.approx(0.6931, abs=1e-3) and losses[1] < losses[0]


def test_trl_trains_kto_on_the_unpaired_rows_as_they_are(version: versions.Version, tmp_path: Path) -> None:
    from trl.experimental.kto import KTOConfig, KTOTrainer

    rows = load(version, "unpaired", tmp_path)
    model, tokenizer = tiny_model(tmp_path / "model")
    settings = KTOConfig(output_dir=str(tmp_path / "run"), per_device_train_batch_size=4, **QUICK)
    trainer = KTOTrainer(model, args=settings, train_dataset=rows["train"], processing_class=tokenizer)
    trainer.train()
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    assert len(losses) == 2 and all(0 < loss < 1 for loss in losses)
