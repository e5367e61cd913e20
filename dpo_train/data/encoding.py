"""From message lists to token ids: the chat template once, the boundary from tokens, the turn's end scored.

Prompt and response are tokenised together, since a token may span their border; the response begins where the
tokens of the prompt alone, of prompt + chosen and of prompt + rejected stop being the same. What a template writes
after the end-of-turn token (SmolLM2: a newline) is left out, because no model is asked to write it.
Too long a pair is dropped and not cut, since a cut removes different amounts from the two sides.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import date
from hashlib import blake2b
from typing import Any, NamedTuple

import pyarrow as pa

from dpo_train.config import TEMPLATE_DATE
from dpo_train.data.dates import dated, writes_date
from dpo_train.data.encoded_pair import EncodedPair, row_length

Messages = Sequence[Mapping[str, str]]
RECIPE = 2  # raise it when the same text would give other tokens, or the cached columns change

PROMPT_TOO_LONG = "prompt_too_long"
CHOSEN_TOO_LONG = "chosen_too_long"
REJECTED_TOO_LONG = "rejected_too_long"
BOTH_TOO_LONG = "both_too_long"
RESPONSE_TOO_LONG = "response_too_long"  # of a single response
EMPTY_RESPONSE = "empty_response"
EMPTY_PROMPT = "empty_prompt"
IDENTICAL = "identical_after_truncation"
REFUSED = "refused_by_template"
BEYOND_POSITIONS = "longer_than_the_model"  # than the positions that it has learned


class Encoded(NamedTuple):
    """A pair as tokens, and what pre-flight tells about it; `reason` is None for a pair that trains."""

    pair: EncodedPair
    reason: str | None
    merged_boundary: bool  # a token spans the border of prompt and response
    cut_chosen: int  # tokens cut off
    cut_rejected: int
    end_chosen: bool  # ends with the end-of-turn token
    end_rejected: bool
    refusal: str = ""  # the template's own words, for a pair that it cannot render


class _Rendered(NamedTuple):
    """The text of a prompt and of the prompt with each response; empty where the template refuses, with its words."""

    prompt: str
    wholes: tuple[str, ...]
    refusal: str = ""


class Encoder:
    """Encodes pairs for one tokenizer and one limit; `key` names everything its output depends on.

    A pair that the chat template cannot render, or that has more input tokens than `positions` (of a model with learned
    position embeddings, null for any other), is left out with a reason: one bad row never stops a run.
    """

    def __init__(
        self,
        tokenizer: Any,
        max_length: int,
        truncation_mode: str,
        positions: int | None = None,
        day: date = TEMPLATE_DATE,
    ) -> None:
        self.tokenizer = tokenizer
        self.template = dated(tokenizer, day)
        self.positions = positions
        self.max_length = max_length
        self.keep_start = truncation_mode == "keep_start"
        self.ends = frozenset({tokenizer.eos_token_id} - {None})
        self.key = f"{tokenizer_fingerprint(tokenizer, day)}-{max_length}-{truncation_mode}-{positions or 0}-{RECIPE}"

    def encode(
        self, prompts: Sequence[Messages], chosen: Sequence[Messages], rejected: Sequence[Messages]
    ) -> list[Encoded]:
        """Encode some pairs at once; a pair that cannot be used has a `reason`."""
        rendered = [self._rendered(*row) for row in zip(prompts, chosen, rejected, strict=True)]
        ids = [self._tokens([row.prompt for row in rendered])]
        ids += [self._tokens([row.wholes[side] for row in rendered]) for side in (0, 1)]
        return [
            _refused(row.refusal) if row.refusal else self._split(*tokens)
            for row, *tokens in zip(rendered, *ids, strict=True)
        ]

    def encode_single(
        self, prompts: Sequence[Messages], responses: Sequence[Messages], desirable: Sequence[bool]
    ) -> list[Encoded]:
        """Encode single responses: a desirable one as chosen, any other as rejected, with the other side empty."""
        rendered = [self._rendered(*row) for row in zip(prompts, responses, strict=True)]
        prompt_ids = self._tokens([row.prompt for row in rendered])
        wholes = self._tokens([row.wholes[0] for row in rendered])
        return [
            _refused(row.refusal) if row.refusal else self._single(prompt, whole, liked)
            for row, prompt, whole, liked in zip(rendered, prompt_ids, wholes, desirable, strict=True)
        ]

    def _rendered(self, prompt: Messages, *responses: Messages) -> _Rendered:
        """Any error of the template, or of a message it cannot read, is the row's: `refusal` has its words."""
        try:
            wholes = tuple(self._render([*prompt, *response], False) for response in responses)
            return _Rendered(self._render(prompt, True), wholes)
        except Exception as error:  # jinja's errors, the template's own, and those of messages without content
            return _Rendered("", ("",) * len(responses), f"{type(error).__name__}: {str(error)[:200]}")

    def _single(self, prompt: list[int], whole: list[int], desirable: bool) -> Encoded:
        border = common_prefix(prompt, whole)
        answer = self._without_tail(whole[border:])
        room = self.max_length - border
        over = max(0, len(answer) - room)
        reason = PROMPT_TOO_LONG if room <= 0 else RESPONSE_TOO_LONG if over and not self.keep_start else None
        if self.keep_start and room > 0:
            answer = answer[:room]
        if border == 0:
            reason = reason or EMPTY_PROMPT
        if not answer:
            reason = reason or EMPTY_RESPONSE
        reason = reason or self._beyond_positions(border, answer)
        cut, ends = over if self.keep_start else 0, bool(answer) and answer[-1] in self.ends
        merged = border < len(prompt)
        if desirable:
            return Encoded(EncodedPair(prompt[:border], answer, ()), reason, merged, cut, 0, ends, True)
        return Encoded(EncodedPair(prompt[:border], (), answer), reason, merged, 0, cut, True, ends)

    def _render(self, messages: Messages, generation: bool) -> str:
        return str(
            self.tokenizer.apply_chat_template(
                list(messages), chat_template=self.template, add_generation_prompt=generation, tokenize=False
            )
        )

    def _beyond_positions(self, border: int, *answers: list[int]) -> str | None:
        """The last token of a response is never an input, so it needs no position."""
        inputs = border + max(map(len, answers)) - 1
        return BEYOND_POSITIONS if self.positions is not None and inputs > self.positions else None

    def _tokens(self, texts: list[str]) -> list[list[int]]:
        """Without special tokens: the template wrote them already (a second BOS would be added here)."""
        ids: list[list[int]] = self.tokenizer(texts, add_special_tokens=False)["input_ids"]
        return ids

    def _split(self, prompt: list[int], chosen: list[int], rejected: list[int]) -> Encoded:
        border = min(common_prefix(prompt, chosen), common_prefix(prompt, rejected))
        answers = [self._without_tail(ids[border:]) for ids in (chosen, rejected)]
        room = self.max_length - border
        over = [len(answer) - room for answer in answers]
        reason = self._too_long(room, over)
        if self.keep_start and room > 0:
            answers = [answer[:room] for answer in answers]
        if border == 0:
            reason = reason or EMPTY_PROMPT
        if not all(answers):
            reason = reason or EMPTY_RESPONSE
        if answers[0] == answers[1]:
            reason = reason or IDENTICAL
        reason = reason or self._beyond_positions(border, *answers)
        cut = [max(0, extra) if self.keep_start else 0 for extra in over]
        ends = [bool(answer) and answer[-1] in self.ends for answer in answers]
        pair = EncodedPair(prompt[:border], answers[0], answers[1])
        return Encoded(pair, reason, border < len(prompt), cut[0], cut[1], ends[0], ends[1])

    def _too_long(self, room: int, over: list[int]) -> str | None:
        if room <= 0:
            return PROMPT_TOO_LONG
        if self.keep_start or max(over) <= 0:
            return None
        if min(over) > 0:
            return BOTH_TOO_LONG
        return CHOSEN_TOO_LONG if over[0] > 0 else REJECTED_TOO_LONG

    def _without_tail(self, answer: list[int]) -> list[int]:
        """Through the last end-of-turn token, if only white space follows it."""
        last = next((place for place in reversed(range(len(answer))) if answer[place] in self.ends), None)
        if last is None or self.tokenizer.decode(answer[last + 1 :]).strip():
            return answer
        return answer[: last + 1]


def _refused(words: str) -> Encoded:
    return Encoded(EncodedPair((), (), ()), REFUSED, False, 0, 0, False, False, words or REFUSED)


def common_prefix(left: Sequence[int], right: Sequence[int]) -> int:
    """How many tokens both begin with."""
    count = 0
    for one, other in zip(left, right, strict=False):
        if one != other:
            break
        count += 1
    return count


SCHEMA = pa.schema(
    [
        ("prompt_tokens", pa.list_(pa.int64())),
        ("chosen_tokens", pa.list_(pa.int64())),
        ("rejected_tokens", pa.list_(pa.int64())),
        ("reason", pa.string()),  # empty for a pair that trains
        ("length", pa.int64()),
        ("merged_boundary", pa.bool_()),
        ("cut_chosen", pa.int64()),
        ("cut_rejected", pa.int64()),
        ("end_chosen", pa.bool_()),
        ("end_rejected", pa.bool_()),
        ("refusal", pa.string()),
    ]
)


def columns(encoded: Sequence[Encoded]) -> dict[str, list[Any]]:
    """The pairs as columns of the token cache (`SCHEMA`); `length` is what the pair costs as an input row."""
    return {
        "prompt_tokens": [one.pair.prompt for one in encoded],
        "chosen_tokens": [one.pair.chosen for one in encoded],
        "rejected_tokens": [one.pair.rejected for one in encoded],
        "reason": [one.reason or "" for one in encoded],
        "length": [row_length(one.pair) for one in encoded],
        "merged_boundary": [one.merged_boundary for one in encoded],
        "cut_chosen": [one.cut_chosen for one in encoded],
        "cut_rejected": [one.cut_rejected for one in encoded],
        "end_chosen": [one.end_chosen for one in encoded],
        "end_rejected": [one.end_rejected for one in encoded],
        "refusal": [one.refusal for one in encoded],
    }


def tokenizer_fingerprint(tokenizer: Any, day: date = TEMPLATE_DATE) -> str:
    """16 hex digits over the tokenizer's rules, its special tokens and its chat template, with the date it writes."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    rules = backend.to_str() if backend is not None else json.dumps(tokenizer.get_vocab(), sort_keys=True)
    text = json.dumps([rules, tokenizer.chat_template, tokenizer.eos_token, tokenizer.bos_token])
    text += day.isoformat() if writes_date(tokenizer) else ""
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
