"""A language model of a few thousand weights, a byte tokenizer with a chat template, and small versions of pairs.

Built on the spot, so that the trainer's tests need no download and take seconds. Texts are learnable: the chosen
answer is a short agreement, the rejected one rambles.
"""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from dpo_train.config import TrainConfig

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
ALONE = SimpleNamespace(process_index=0, num_processes=1, is_main_process=True, backward=torch.Tensor.backward)
MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))


def tokenizer(template: str | None = CHATML) -> Any:
    """One token a byte, `<|im_start|>` and `<|im_end|>` (the end of a turn)."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: place for place, letter in enumerate(alphabet)}
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    made = PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<|im_start|>", eos_token="<|im_end|>", pad_token="<|im_end|>"
    )
    made.chat_template = template
    return made


def network(seed: int = 0, dtype: torch.dtype = torch.float32, family: str = "llama", **changes: Any) -> Any:
    """A model of two layers, width 32, two heads over one key head, vocabulary of the tokenizer above.

    Families that name a size in their own way, or have more of them, take theirs as `changes`.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(seed)
    sizes = {
        "vocab_size": 258,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 1024,
        "initializer_range": 0.2,
        "eos_token_id": 257,
        "bos_token_id": 256,
        "pad_token_id": 257,
    }
    config = AutoConfig.for_model(family, **{**sizes, **changes})
    return AutoModelForCausalLM.from_config(config).to(dtype).eval()


def model_folder(folder: Path, seed: int = 0, **changes: Any) -> Path:
    """The model and its tokenizer, saved as any local model is."""
    network(seed, **changes).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def settings(model: Path, **changes: Any) -> TrainConfig:
    """Of a short run on the CPU, whose rate is high enough for so small a network to learn in a few steps."""
    base = {"model": str(model), "use_cpu": True, "learning_rate": 5e-3, "report_to": (), "stop_when_flat": False}
    return TrainConfig.model_validate({**base, **changes})


def row(number: int, split: str = "train", **changes: Any) -> dict[str, Any]:
    """Pair `number`: a question, a short yes and a rambling no of uneven lengths; every second prompt comes twice."""
    made = {
        "pair_id": f"{split}-{number:04d}",
        "prompt": [{"role": "user", "content": f"Is {number // 2 * 2} even? " + "Please. " * (number % 3)}],
        "chosen": [{"role": "assistant", "content": f"Yes, {number // 2 * 2}." + "!" * (number % 4)}],
        "rejected": [{"role": "assistant", "content": "Well, " + "who knows " * (1 + number % 5) + str(number)}],
        "weight": 1.0,
        "confidence": 0.9,
        "votes_chosen": 3,
        "votes_rejected": 0,
        "source": ("forum", "judged")[number % 2],
        "split": split,
        "prompt_group": f"{split}-prompt-{number // 2}",
        "category": ("chat", "facts", "code")[number % 3],
    }
    return {**made, **changes}


def version(store: Path, train: int = 24, validation: int = 8, test: int = 6, name: str = "tiny") -> Path:
    """A published version's shards, the train split in two of them."""
    rows = {
        "train": [row(k) for k in range(train)],
        "validation": [row(k, "validation") for k in range(1000, 1000 + validation)],
        "test": [row(k, "test") for k in range(2000, 2000 + test)],
    }
    return write_version(store / "versions" / name, rows)


def unpaired_version(store: Path, train: int = 12, validation: int = 6, test: int = 4, name: str = "thumbs") -> Path:
    """A published version's unpaired shards: both sides of so many pairs a split, and one more desirable response."""
    splits = {}
    for split, first, count in (("train", 0, train), ("validation", 1000, validation), ("test", 2000, test)):
        pairs = [row(number, split) for number in range(first, first + count)]
        rows = [
            {
                "row_id": f"{pair['pair_id']}-{side}",
                "prompt": pair["prompt"],
                "completion": pair[side],
                "label": side == "chosen",
                **{name: pair[name] for name in ("weight", "source", "split")},
            }
            for pair in pairs
            for side in ("chosen", "rejected")
        ]
        splits[split] = [*rows, {**rows[0], "row_id": f"{split}-thumb", "completion": rows[2]["completion"]}]
    return write_version(store / "versions" / name, splits, "unpaired")


def write_version(folder: Path, rows: dict[str, list[dict[str, Any]]], kind: str = "pairs") -> Path:
    """Shards of the given rows, at most 12 rows each."""
    (folder / kind).mkdir(parents=True, exist_ok=True)
    for split, all_rows in rows.items():
        parts = [all_rows[start : start + 12] for start in range(0, len(all_rows), 12)]
        for place, part in enumerate(parts):
            columns = {name: [one[name] for one in part] for name in part[0]}
            table = pa.table({name: _array(name, values) for name, values in columns.items()})
            pq.write_table(table, folder / kind / f"{split}-{place:05d}-of-{len(parts):05d}.parquet")
    return folder


def _array(name: str, values: list[Any]) -> pa.Array:
    if name in ("prompt", "chosen", "rejected", "completion"):
        return pa.array(values, MESSAGES)
    if name.startswith("votes"):
        return pa.array(values, pa.uint32())
    return pa.array(values)
