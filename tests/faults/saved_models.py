"""Model families, adapters and precisions: what is merged or saved scores as the run did, by hand, to 1e-3 nats."""

import sys
import tempfile
import warnings
from itertools import product
from pathlib import Path
from typing import Any

from result import Result

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from helpers import tiny
from test_saved import held_out, off, scored, settings
from transformers import AutoModelForCausalLM

from dpo_train.policy.merge_adapter import merge
from dpo_train.progress import quiet_peft
from dpo_train.train import train

LIMIT = 1e-3
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 512},
    "bloom": {"n_layer": 2, "n_head": 2},
    "opt": {"ffn_dim": 64, "word_embed_proj_dim": 32},
    "mixtral": {"num_local_experts": 4},
    "gemma2": {"head_dim": 16},
    "gemma3_text": {"head_dim": 16},
}
EMBEDDING = {"gpt2": "wte", "bloom": "word_embeddings"}
WAYS: dict[str, dict[str, Any]] = {
    "all-linear": {"lora_target_modules": "all-linear"},
    "embeddings": {},
    "bfloat16": {"lora_target_modules": "all-linear", "dtype": "bfloat16", "use_rslora": True},
    "all weights": {"use_peft": False, "learning_rate": 1e-3},
}


def run(seed: int) -> Result:
    """Train, save and reopen every combination; `seed` is that of the models' weights."""
    warnings.filterwarnings("ignore", category=FutureWarning)
    result = Result()
    for family, way, tied in product(FAMILIES, WAYS, (True, False)):
        with tempfile.TemporaryDirectory() as folder:
            try:
                problem = _problem(Path(folder), seed, family, way, tied)
            except Exception as error:
                problem = f"{type(error).__name__}: {error}"
        result.record(problem and f"{family}, {way}, {'tied' if tied else 'untied'}: {problem}")
    return result


def _problem(folder: Path, seed: int, family: str, way: str, tied: bool) -> str | None:
    changes = dict(WAYS[way])
    if way == "embeddings":
        changes["lora_target_modules"] = ("lm_head", EMBEDDING.get(family, "embed_tokens"))
    model = tiny.model_folder(folder / "model", seed, family=family, tie_word_embeddings=tied, **FAMILIES[family])
    summary = train(settings(model, max_steps=3, **changes), tiny.version(folder), folder / "run")
    merged = AutoModelForCausalLM.from_pretrained(merge(folder / "run")).eval()
    if way != "bfloat16":
        found = off(summary, merged, tiny.tokenizer())
    else:  # the run's own numbers are rounded: its adapter's, in float32, are not
        from peft import PeftModel

        with quiet_peft():
            adapter = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(model), folder / "run" / "adapter")
        both = [scored(network, tiny.tokenizer(), held_out()) for network in (merged, adapter.eval())]
        found = float((both[0] - both[1]).abs().max())
    return None if found < LIMIT else f"{found:.2g} nats off"
