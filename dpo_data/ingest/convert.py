"""Items of a reader as tables: canonical text, content ids, sides a and b, one part of a batch at a time.

A part is a bounded number of items, written as small Parquet files, so that a source of any size converts in
bounded memory and in several processes; `batches.py` joins the parts in order. Sides move here and
nowhere else, so whatever names a side (choice, shown_first, models, gold labels) is turned here too.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

import polars as pl

from dpo_data.formats.detect import reader
from dpo_data.ids import canonical, comparison_hash, prompt_hash, text_hash
from dpo_data.reading.files import Piece
from dpo_data.reading.records import BinaryRating, Item, Message, NonText, Vote
from dpo_data.schema import COMPARISONS, LEDGER, REJECTS, THUMBS, VOTES

PART_ITEMS = 20_000  # items to a part: about 100 MB of Python objects at realistic lengths
CACHED_TEXTS = 20_000  # texts whose canonical form and hash are remembered: responses and prompts repeat nearby
RECORD_CUT = 4096  # characters of a rejected record that are kept

REJECTED, THUMBED, VOTED = 1, 2, 3  # what became of a raw record; the highest of its items counts
RENAMED = {"source": "subset", **{key: f"source_{key}" for key in LEDGER if key != "source"}}  # columns of the ledger
FLIPPED = {"first": "b", "second": "a"}
UNFLIPPED = {"first": "a", "second": "b"}
PART_COMPARISONS = pl.Schema({**COMPARISONS, "attributes_hash": pl.String()})
PART_THUMBS = pl.Schema(
    {
        **THUMBS,
        "prompt_hash": pl.String(),
        "completion_hash": pl.String(),
        "attributes": pl.String(),
        "file": pl.Int64(),
        "record": pl.Int64(),
    }
)
TABLES = {"comparisons": PART_COMPARISONS, "votes": VOTES, "thumbs": PART_THUMBS, "rejects": REJECTS}


@dataclass(frozen=True, slots=True)
class Job:
    """One file, or one piece of it, to be converted to parts in `folder`."""

    number: int  # of the job: parts sort by it
    folder: Path
    path: Path
    piece: Piece | None
    file: int  # which file of the append
    name: str  # the file's name in origins
    source: str
    format: str | None
    columns: Mapping[str, Any] | None
    annotator_kind: str | None


@dataclass(slots=True)
class PartFiles:
    """One part on disk: `stem` of its files, (record, fate) pairs, and the sum of its rows' content hashes."""

    stem: Path
    file: int
    fates: list[tuple[int, int]]
    digest: int


def convert(job: Job) -> list[PartFiles]:
    """Read the job's records and write its parts. Runs anywhere: it needs the job alone."""
    _, read = reader(job.path, job.format, job.columns)
    written: list[PartFiles] = []
    texts, part = Texts(), Part(job)
    for item in read.read(job.piece or job.path):
        if len(part) >= PART_ITEMS:
            written.append(part.write(len(written)))
            part = Part(job)
        part.add(item, texts)
    written.append(part.write(len(written)))
    return written


class Texts:
    """Canonical form and hash of texts and prompts, remembering the latest."""

    def __init__(self) -> None:
        self._texts: dict[str, tuple[str, str]] = {}
        self._prompts: dict[tuple[str, ...], tuple[list[Message], str]] = {}

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
        key = tuple(part for message in raw for part in (message["role"], message["content"]))
        known = self._prompts.get(key)
        if known is None:
            if len(self._prompts) >= CACHED_TEXTS:
                self._prompts.clear()
            clean = [Message(role=message["role"], content=canonical(message["content"])) for message in raw]
            known = self._prompts[key] = (clean, prompt_hash(clean))  # type: ignore[arg-type]
        return known


@dataclass(slots=True)
class Part:
    """The rows of one part, and what became of its raw records."""

    job: Job
    comparisons: dict[str, tuple[list[Message], str, str, set[tuple[str, str]]]] = field(default_factory=dict)
    votes: list[tuple[Any, ...]] = field(default_factory=list)
    thumbs: list[tuple[Any, ...]] = field(default_factory=list)
    rejects: list[tuple[str, str, str, str]] = field(default_factory=list)
    fates: dict[int, int] = field(default_factory=dict)
    digest: int = 0

    def __len__(self) -> int:
        return len(self.votes) + len(self.thumbs) + len(self.rejects)

    def add(self, item: Item, texts: Texts) -> None:
        """Take one item in."""
        origin = f"{self.job.name}:{','.join(map(str, item.records))}"
        if isinstance(item, Vote):
            fate = VOTED
            self.vote(item, texts, origin)
        elif isinstance(item, BinaryRating):
            fate = THUMBED
            self._thumb(item, texts, origin)
        else:
            fate = REJECTED
            cut = item.text[:RECORD_CUT]
            self.rejects.append((origin, item.reason, cut, self.job.source))
            self._sum(item.reason, cut)
        for record in item.records:
            if fate > self.fates.get(record, 0):
                self.fates[record] = fate

    def vote(self, item: Vote, texts: Texts, origin: str, source: str | None = None) -> None:
        """Take one vote in, under the given origin (and source, where it is not the job's)."""
        prompt, prompt_key = texts.prompt(item.prompt)
        first, first_key = texts.text(item.first)
        second, second_key = texts.text(item.second)
        flipped = second_key < first_key
        comparison = comparison_hash(prompt_key, first_key, second_key)
        known = self.comparisons.get(comparison)
        if known is None:
            a, b = (second, first) if flipped else (first, second)
            known = self.comparisons[comparison] = (prompt, a, b, set())
        facts = sorted(attributes(item, flipped))
        known[3].update(facts)
        side = FLIPPED if flipped else UNFLIPPED
        choice, shown = side.get(item.choice, item.choice), side.get(item.shown_first or "")
        kind = self.job.annotator_kind or item.annotator_kind
        said = (choice, item.strength, item.annotator, kind, item.at, shown)
        self.votes.append((comparison, *said, source or self.job.source, origin))
        self._sum(comparison, *said, facts)

    def _thumb(self, item: BinaryRating, texts: Texts, origin: str) -> None:
        prompt, prompt_key = texts.prompt(item.prompt)
        completion, completion_key = texts.text(item.completion)
        kind = self.job.annotator_kind or item.annotator_kind
        said = (item.label, item.annotator, kind, item.at)
        facts = json.dumps(dict(item.attributes), sort_keys=True)
        keys = (prompt_key, completion_key, facts)
        self.thumbs.append((prompt, completion, *said, self.job.source, origin, *keys, self.job.file, item.records[0]))
        self._sum(*keys, *said)

    def _sum(self, *row: object) -> None:
        """Add the row's content hash: a sum does not depend on the order of rows, parts or files."""
        self.digest += int.from_bytes(blake2b(repr(row).encode("utf-8", "replace"), digest_size=16).digest(), "big")

    def frames(self) -> dict[str, pl.DataFrame]:
        """The part's tables, in record order."""
        comparisons = [
            (key, prompt, a, b, listed(sorted(facts)), _short(sorted(facts)))
            for key, (prompt, a, b, facts) in self.comparisons.items()
        ]
        rows = {"comparisons": comparisons, "votes": self.votes, "thumbs": self.thumbs, "rejects": self.rejects}
        return {name: pl.DataFrame(rows[name], schema=schema, orient="row") for name, schema in TABLES.items()}

    def write(self, number: int) -> PartFiles:
        """Write the part's tables beside each other, and forget them."""
        stem = self.job.folder / f"part-{self.job.number:06d}-{number:06d}"
        for name, frame in self.frames().items():
            if frame.height:
                frame.write_parquet(f"{stem}.{name}.parquet", compression="lz4")
        return PartFiles(stem, self.job.file, list(self.fates.items()), self.digest)


def listed(facts: list[tuple[str, str]]) -> list[dict[str, str]]:
    """Attributes in the shape of the store."""
    return [{"key": key, "value": value} for key, value in facts]


def _short(facts: list[tuple[str, str]]) -> str:
    return text_hash(repr(facts))[:16] if facts else ""


def attributes(item: Vote, flipped: bool) -> Iterator[tuple[str, str]]:
    """(key, value) of everything the source says of the comparison, sides turned to a and b."""
    for key, value in item.attributes.items():
        yield RENAMED.get(key, key), value
    a, b = (item.of_second, item.of_first) if flipped else (item.of_first, item.of_second)
    for key, value in a.items():
        yield f"{key}_a", value
    for key, value in b.items():
        yield f"{key}_b", value
    side = FLIPPED if flipped else UNFLIPPED
    odd = type(item.first) is NonText, type(item.second) is NonText
    if any(odd):
        yield "non_text_response", "both" if all(odd) else side["first"] if odd[0] else side["second"]
    for key, value in item.sided.items():
        yield key, side.get(value, value)
