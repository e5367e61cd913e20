"""Items of a reader as tables: canonical text, content ids, sides a and b, one part of a batch at a time.

A part is a bounded number of items, so that a source of any size converts in bounded memory and in
several processes. Within a part a comparison stands once; `batches.py` joins the parts. The
surprise: sides move here and nowhere else, so whatever names a side (choice, shown_first, models,
gold labels) is turned here too.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from dpo_data.formats.records import Item, Judgement, Message, NonText, Thumb
from dpo_data.identity import canonical, comparison_hash, prompt_hash, text_hash
from dpo_data.schema import COMPARISONS, LEDGER, REJECTS, THUMBS, VOTES

PART_ITEMS = 20_000  # items to a part: about 100 MB of Python objects at realistic lengths
CACHED_TEXTS = 20_000  # texts whose canonical form and hash are remembered: responses and prompts repeat nearby
RECORD_CUT = 4096  # characters of a rejected record that are kept

RENAMED = {"source": "subset", **{key: f"source_{key}" for key in LEDGER if key != "source"}}  # columns of the ledger
REJECTED, THUMBED, VOTED = 1, 2, 3  # what became of a raw record; the highest of its items counts


class Texts:
    """Canonical form and hash of texts and prompts, remembering the latest."""

    def __init__(self) -> None:
        self._texts: dict[str, tuple[str, str]] = {}
        self._prompts: dict[tuple[str, ...], tuple[list[Message], str]] = {}
        self._last: tuple[list[Message], tuple[list[Message], str]] | None = None

    def text(self, raw: str) -> tuple[str, str]:
        """(canonical, hash) of a text."""
        known = self._texts.get(raw)
        if known is None:
            if len(self._texts) >= CACHED_TEXTS:
                self._texts.clear()
            clean = canonical(raw)
            known = self._texts[raw] = (clean, text_hash(clean))
        return known

    def prompt(self, raw: list[Message]) -> tuple[list[Message], str]:
        """(canonical messages, hash) of a prompt."""
        if self._last is not None and self._last[0] is raw:
            return self._last[1]
        key = tuple(part for message in raw for part in (message["role"], message["content"]))
        known = self._prompts.get(key)
        if known is None:
            if len(self._prompts) >= CACHED_TEXTS:
                self._prompts.clear()
            clean = [Message(role=message["role"], content=canonical(message["content"])) for message in raw]
            known = self._prompts[key] = (clean, prompt_hash(clean))  # type: ignore[arg-type]
        self._last = (raw, known)
        return known


@dataclass(slots=True)
class Part:
    """The rows of one part as plain lists, and what became of its raw records."""

    source: str
    file: str
    comparisons: dict[str, tuple[list[Message], str, str, set[tuple[str, str]]]] = field(default_factory=dict)
    votes: list[tuple[Any, ...]] = field(default_factory=list)
    thumbs: list[dict[str, Any]] = field(default_factory=list)
    rejects: list[tuple[str, str, str, str]] = field(default_factory=list)
    fates: dict[int, int] = field(default_factory=dict)

    def add(self, item: Item, texts: Texts, annotator_kind: str | None) -> None:
        """Take one item in."""
        if isinstance(item, Judgement):
            fate = VOTED
            self._vote(item, texts, annotator_kind)
        elif isinstance(item, Thumb):
            fate = THUMBED
            self._thumb(item, texts, annotator_kind)
        else:
            fate = REJECTED
            self.rejects.append((self._origin(item.records), item.reason, item.text[:RECORD_CUT], self.source))
        for record in item.records:
            if fate > self.fates.get(record, 0):
                self.fates[record] = fate

    def _origin(self, records: tuple[int, ...]) -> str:
        return f"{self.file}:{','.join(map(str, records))}"

    def _vote(self, item: Judgement, texts: Texts, annotator_kind: str | None) -> None:
        prompt, prompt_key = texts.prompt(item.prompt)
        first, first_key = texts.text(item.first)
        second, second_key = texts.text(item.second)
        flipped = second_key < first_key
        comparison = comparison_hash(prompt_key, first_key, second_key)
        known = self.comparisons.get(comparison)
        if known is None:
            a, b = (second, first) if flipped else (first, second)
            known = self.comparisons[comparison] = (prompt, a, b, set())
        known[3].update(attributes(item, flipped))
        side = {"first": "b", "second": "a"} if flipped else {"first": "a", "second": "b"}
        self.votes.append(
            (
                comparison,
                side.get(item.choice, item.choice),
                item.strength,
                item.annotator,
                kind_of(item, annotator_kind),
                item.at,
                side.get(item.shown_first) if item.shown_first else None,
                self.source,
                self._origin(item.records),
            )
        )

    def _thumb(self, item: Thumb, texts: Texts, annotator_kind: str | None) -> None:
        prompt, prompt_key = texts.prompt(item.prompt)
        completion, completion_key = texts.text(item.completion)
        self.thumbs.append(
            {
                "prompt": prompt,
                "completion": completion,
                "label": item.label,
                "annotator": item.annotator,
                "annotator_kind": kind_of(item, annotator_kind),
                "at": item.at,
                "source": self.source,
                "origin": self._origin(item.records),
                "prompt_hash": prompt_key,
                "completion_hash": completion_key,
                "record": item.records[0],
            }
        )

    def comparisons_frame(self) -> pl.DataFrame:
        """The part's comparisons, schema COMPARISONS, in order of first sight."""
        rows = [
            (key, prompt, a, b, [{"key": name, "value": value} for name, value in sorted(named)])
            for key, (prompt, a, b, named) in self.comparisons.items()
        ]
        return pl.DataFrame(rows, schema=COMPARISONS, orient="row")

    def votes_frame(self) -> pl.DataFrame:
        """The part's votes, schema VOTES, in record order."""
        return pl.DataFrame(self.votes, schema=VOTES, orient="row")

    def thumbs_frame(self) -> pl.DataFrame:
        """The part's thumbs, schema THUMBS and the hashes and record numbers that pairing needs."""
        extra = {"prompt_hash": pl.String, "completion_hash": pl.String, "record": pl.Int64}
        return pl.DataFrame(self.thumbs, schema={**THUMBS, **extra})

    def rejects_frame(self) -> pl.DataFrame:
        """The part's rejects, schema REJECTS."""
        return pl.DataFrame(self.rejects, schema=REJECTS, orient="row")


def kind_of(item: Judgement | Thumb, annotator_kind: str | None) -> str:
    """What the source's settings say of its annotators, else what the reader knows."""
    return annotator_kind or item.annotator_kind


def attributes(item: Judgement, flipped: bool) -> Iterator[tuple[str, str]]:
    """(key, value) of everything the source says of the comparison, sides turned to a and b."""
    for key, value in item.attributes.items():
        yield RENAMED.get(key, key), value
    a, b = (item.of_second, item.of_first) if flipped else (item.of_first, item.of_second)
    for key, value in a.items():
        yield f"{key}_a", value
    for key, value in b.items():
        yield f"{key}_b", value
    odd = {side for side, text in (("a", item.first), ("b", item.second)) if isinstance(text, NonText)}
    if odd:
        named = "both" if len(odd) == 2 else odd.pop()
        yield "non_text_response", {"a": "b", "b": "a"}.get(named, named) if flipped else named
    if item.sided:
        side = {"first": "b", "second": "a"} if flipped else {"first": "a", "second": "b"}
        for key, value in item.sided.items():
            yield key, side.get(value, value)
