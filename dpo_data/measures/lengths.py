"""How long prompts and responses are: characters, words, turns, and tokens of the model to be trained.

Characters are code points, words are what white space separates. Tokens need the tokenizer of the model and are
measured apart, in text/token_counts.py; null there means "not measured".
"""

import polars as pl

from dpo_data.settings import Settings


class SizeLimits(Settings):
    """Limits on single responses and on what the trainer's `max_length` leaves of a pair."""

    max_response_tokens: int | None = None  # no default: what is too long is the trainer's budget, not ours to guess
    max_length: int | None = 1024  # prompt and response together, as TRL's DPOConfig.max_length (1024)


def measure(ledger: pl.DataFrame) -> pl.DataFrame:
    """Add `tokens_to_divergence`: tokens before the responses differ; null where identical or not counted.

    What both responses start with, end mark included, may fill the room the prompt leaves: then truncation makes them
    one sequence, with loss ln 2 and gradient 0.
    """
    differ = pl.col("hash_a") != pl.col("hash_b")
    to_parting = pl.when(differ).then(pl.col("tokens_prompt") + pl.col("tokens_shared"))
    return ledger.with_columns(tokens_to_divergence=to_parting)


def rules(limits: SizeLimits) -> dict[str, pl.Expr]:
    """Blank texts, identical responses, and what the limits on tokens forbid."""
    found = {
        "blank_prompt": pl.col("prompt_chars") == 0,
        "blank_response": (pl.col("chars_a") == 0) | (pl.col("chars_b") == 0),
        "response_not_text": pl.col("response_not_text"),
        "identical_responses": pl.col("hash_a") == pl.col("hash_b"),
    }
    if limits.max_response_tokens is not None:
        found["response_too_long"] = pl.max_horizontal("tokens_a", "tokens_b") > limits.max_response_tokens
    if limits.max_length is not None:
        found["identical_after_truncation"] = pl.col("tokens_to_divergence") >= limits.max_length
    return found
