"""The pairs of a version, split by split: memory-mapped shards, tokens made once, metadata on demand.

Shards are opened with `datasets`, so a set larger than memory trains; tokens lie in an Arrow file of the cache that is
keyed by the shards' content, the tokenizer and the truncation, and by nothing else. Only numbers a pair (length,
weight, hashes) are held in memory. A single response of the unpaired shards is a pair with one empty side.
Pairs that cannot train are left out here, each with a reason in `reasons`, and indices count the pairs that
stayed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dpo_train.config import TrainError
from dpo_train.data.encoded_pair import EncodedPair
from dpo_train.data.encoding import SCHEMA, Encoded, Encoder, columns
from dpo_train.losses.contract import Shards
from dpo_train.progress import quiet_bars
from dpo_train.statistics import Indices

SPLITS = ("train", "validation", "test")
_NEEDED: dict[Shards, tuple[str, ...]] = {
    "pairs": ("pair_id", "prompt", "chosen", "rejected"),
    "unpaired": ("row_id", "prompt", "completion", "label"),
}
DESIRABLE, UNDESIRABLE = "desirable", "undesirable"  # the label of a single response, as slices show it


class Rows(Protocol):
    """What can be scored: a `PairSet`, or its rows put together otherwise."""

    split: str
    pair_ids: list[str]
    lengths: Indices  # input tokens of a row that the pair has for itself: prompt and what is not shared once
    ends: Indices  # input tokens of its longer response with the prompt before it

    def __len__(self) -> int: ...

    def encoded(self, indices: Iterable[int]) -> list[EncodedPair]:
        """Token ids of some rows."""
        ...


VERSION_SCHEMA = 2  # as dpo_data.schema.SCHEMA; a test holds them equal


class PairSet:
    """The pairs of one split that can train, addressed 0..len-1 in the order of the shards."""

    def __init__(self, split: str, rows: Any, tokens: Any) -> None:
        """`rows` and `tokens` are datasets of all pairs of the shards, row by row the same pair."""
        reasons = np.asarray(tokens.data.column("reason").to_pylist(), dtype=object)
        self.split = split
        self.rows = rows
        self.tokens = tokens
        self.reasons = reasons
        self.kept: Indices = np.flatnonzero(reasons == "").astype(np.int64)
        self.pair_ids: list[str] = self._column("pair_id")
        self.lengths: Indices = np.asarray(self._numbers(tokens, "length"), dtype=np.int64)
        longer = np.maximum(self.tokens_of("chosen"), self.tokens_of("rejected"))
        self.ends: Indices = self.tokens_of("prompt") + longer - 1
        self.weights = self._floats("weight")
        self.confidence = self._floats("confidence")
        self.prompts = self._prompt_groups()

    def __len__(self) -> int:
        return len(self.kept)

    def encoded(self, indices: Iterable[int]) -> list[EncodedPair]:
        """Token ids of some pairs."""
        wanted = self.kept[np.asarray(list(indices), dtype=np.int64)]
        names = ("prompt_tokens", "chosen_tokens", "rejected_tokens")
        table = pa.concat_tables([self.tokens.data.table.slice(int(row), 1) for row in wanted]) if len(wanted) else None
        if table is None:
            return []
        return [EncodedPair(*ids) for ids in zip(*(table.column(name).to_pylist() for name in names), strict=True)]

    def tokens_of(self, part: Literal["prompt", "chosen", "rejected"]) -> Indices:
        """How many tokens that part of every pair has, shape (pairs,); 0 for a side that a single response lacks."""
        counts = pc.list_value_length(self.tokens.data.column(f"{part}_tokens")).to_numpy()
        return np.asarray(counts[self.kept], dtype=np.int64)

    def first_beyond(self, rows: int) -> int | None:
        """The first pair with a token of an id that a vocabulary of so many rows does not have, or None."""
        columns = [self.tokens.data.column(f"{part}_tokens") for part in ("prompt", "chosen", "rejected")]
        if max((pc.max(pc.list_flatten(column)).as_py() or 0 for column in columns), default=0) < rows:
            return None
        for place in range(len(self)):
            [pair] = self.encoded([place])
            if max(max(part, default=0) for part in pair) >= rows:
                return place
        return None

    def metadata(self, indices: Sequence[int]) -> pa.Table:
        """Every column of some pairs; prompt, chosen and rejected as text (of a single response, one is empty)."""
        table = self.rows.select(self.kept[np.asarray(indices, dtype=np.int64)]).with_format("arrow")[:]
        if "completion" in table.column_names:
            table = _sides(table)
        for name in ("prompt", "chosen", "rejected"):
            texts = [_text(messages) for messages in table.column(name).to_pylist()]
            table = table.set_column(table.column_names.index(name), name, pa.array(texts, pa.string()))
        return table.replace_schema_metadata(None)

    def probe(self, count: int) -> Indices:
        """At most `count` pairs, the same ones for the same data: spread over the sources, first by hash of the id."""
        if count >= len(self):
            return np.arange(len(self), dtype=np.int64)
        sources = self._column("source") if "source" in self.rows.column_names else [""] * len(self)
        ranked: dict[str, list[tuple[bytes, int]]] = {}
        for place, (source, name) in enumerate(zip(sources, self.pair_ids, strict=True)):
            ranked.setdefault(str(source), []).append((blake2b(name.encode(), digest_size=8).digest(), place))
        shares = [sorted(group) for _, group in sorted(ranked.items())]
        # a pair's place within its source's share: taking the lowest gives every source its proportion
        spread = sorted(((k + 0.5) / len(group), place) for group in shares for k, (_, place) in enumerate(group))
        return np.sort(np.array([place for _, place in spread[:count]], dtype=np.int64))

    def _column(self, name: str) -> list[Any]:
        return self.rows.data.column(name).take(pa.array(self.kept)).to_pylist()  # type: ignore[no-any-return]

    def _numbers(self, dataset: Any, name: str) -> npt.NDArray[Any]:
        return np.asarray(dataset.data.column(name).to_numpy())[self.kept]

    def _floats(self, name: str) -> npt.NDArray[np.float64]:
        """A column of numbers, 1 where it is null or absent: no weight given means full weight."""
        if name not in self.rows.column_names:
            return np.ones(len(self))
        values = np.array([1.0 if value is None else float(value) for value in self._column(name)])
        if not (np.isfinite(values).all() and (values >= 0).all()):
            worst = self.pair_ids[int(np.flatnonzero(~np.isfinite(values) | (values < 0))[0])]
            raise TrainError(
                f"{self.split}: column {name} of pair {worst} is not a finite number ≥ 0. Publish the version again."
            )
        return values

    def _prompt_groups(self) -> list[str]:
        """What clusters pairs of one prompt: the column prompt_group or prompt_hash, or a hash of the prompt."""
        known: list[Any] = [None] * len(self)
        for name in ("prompt_group", "prompt_hash"):
            if name in self.rows.column_names:
                known = self._column(name)
                break
        column = self.rows.data.column("prompt")
        return [
            _digest(_text(column[int(row)].as_py())).hexdigest() if value is None else str(value)
            for row, value in zip(self.kept, known, strict=True)
        ]

    def unknown(self, name: str) -> int:
        """How many pairs have no value in a column; all of them where there is no such column."""
        if name not in self.rows.column_names:
            return len(self)
        return sum(value is None for value in self._column(name))


@quiet_bars()
def open_pairs(version: Path, split: str, encoder: Encoder, cache: Path, kind: Shards = "pairs") -> PairSet:
    """The rows of one split of a version folder, of the shards that the loss trains on; empty where there are none.

    Raises `TrainError` where the version has no such shards or they lack a column.
    """
    import datasets

    _check_schema(version)
    shards = sorted((version / kind).glob(f"{split}-*.parquet"))
    if not (version / kind).is_dir() or (split == "train" and not shards):
        raise TrainError(f"{version}: no shards {kind}/{split}-*.parquet. {_how_to_get(version, kind)}")
    shards = [shard for shard in shards if pq.ParquetFile(shard).metadata.num_rows]
    if not shards:
        return PairSet(split, *_nothing())
    _check_columns(shards, kind)
    digest = blake2b(digest_size=8)
    for shard in shards:
        digest.update(shard.read_bytes())
    rows = datasets.Dataset.from_parquet([str(shard) for shard in shards], cache_dir=str(cache / "shards"))
    key = f"{digest.hexdigest()}-{encoder.key}"
    (cache / "tokens").mkdir(parents=True, exist_ok=True)
    tokens = rows.map(
        lambda batch: columns(_encode(encoder, batch, kind)),
        batched=True,
        batch_size=500,
        remove_columns=rows.column_names,
        features=datasets.Features.from_arrow_schema(SCHEMA),
        new_fingerprint=_digest(key).hexdigest(),
        cache_file_name=str(cache / "tokens" / f"{key}.arrow"),
    )
    return PairSet(split, rows.rename_column("row_id", "pair_id") if kind == "unpaired" else rows, tokens)


def _encode(encoder: Encoder, batch: Mapping[str, Any], kind: Shards) -> list[Encoded]:
    if kind == "unpaired":
        if None in batch["label"]:
            name = batch["row_id"][batch["label"].index(None)]
            raise TrainError(f"unpaired row {name} has no label: expected true or false. Publish the version again.")
        return encoder.encode_single(batch["prompt"], batch["completion"], batch["label"])
    return encoder.encode(batch["prompt"], batch["chosen"], batch["rejected"])


_HOW_TO_GET: dict[Shards, str] = {
    "pairs": "Publish a version first, or check the path.",
    "unpaired": "This loss trains on single responses: publish a version with shards.unpaired true, or choose a loss "
    "of pairs.",
}


def _how_to_get(version: Path, kind: Shards) -> str:
    """What to do where a version lacks the shards of a loss; a version of thumbs alone has no pairs."""
    responses = sum(pq.ParquetFile(shard).metadata.num_rows for shard in (version / "unpaired").glob("*.parquet"))
    if kind == "unpaired" or (version / "pairs").is_dir() or not responses:
        return _HOW_TO_GET[kind]
    return (
        f"The version holds {responses} single responses with a thumb and no pairs, so a loss of pairs has nothing to "
        "train on: set loss_type to kto or apo_zero_unpaired, or read comparisons into the store."
    )


def _check_schema(version: Path) -> None:
    manifest = version / "manifest.json"
    number = json.loads(manifest.read_text(encoding="utf-8")).get("schema", 1) if manifest.exists() else VERSION_SCHEMA
    if number != VERSION_SCHEMA:
        raise TrainError(
            f"Version {version.name} has tables of schema {number}, and this release reads schema {VERSION_SCHEMA}. "
            "Run `dpo refresh`: it publishes a new version from the same batches."
        )


def _check_columns(shards: Sequence[Path], kind: Shards) -> None:
    names = pq.ParquetFile(shards[0]).schema_arrow.names
    missing = [name for name in _NEEDED[kind] if name not in names]
    if missing:
        raise TrainError(
            f"{shards[0]}: column {', '.join(missing)} missing; found {', '.join(names)}. Expected the {kind} shards "
            f"of a published version ({', '.join(_NEEDED[kind])}, weight, …)."
        )


def _sides(table: pa.Table) -> pa.Table:
    """Single responses under the names of pairs: as chosen where desirable, else as rejected; the label in words."""
    labels, responses = table.column("label").to_pylist(), table.column("completion").to_pylist()
    kind = table.schema.field("completion").type
    sides = {
        "chosen": [response if label else None for response, label in zip(responses, labels, strict=True)],
        "rejected": [None if label else response for response, label in zip(responses, labels, strict=True)],
    }
    for name, values in sides.items():
        table = table.append_column(name, pa.array(values, kind))
    words = pa.array([DESIRABLE if label else UNDESIRABLE for label in labels], pa.string())
    table = table.set_column(table.column_names.index("label"), "label", words)
    return table.remove_column(table.column_names.index("completion"))


def _nothing() -> tuple[Any, Any]:
    import datasets

    rows = datasets.Dataset.from_dict({name: [] for name in _NEEDED["pairs"]})
    return rows, datasets.Dataset.from_dict(columns([]), features=datasets.Features.from_arrow_schema(SCHEMA))


def _text(messages: Any) -> str:
    """A message list as one readable text: a lone message is its content, several are told apart by role."""
    if messages is None:
        return ""
    if len(messages) == 1:
        return str(messages[0]["content"])
    return "\n\n".join(f"{message['role']}: {message['content']}" for message in messages)


def _digest(text: str) -> Any:
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8)
