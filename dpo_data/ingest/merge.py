"""Parts become the tables of one batch: comparisons once each, opposite thumbs paired, everything in order.

Text passes through once, part by part; only ids and record numbers are held for the whole batch. A
comparison that returns with other attributes (another model gave the same answer, say) keeps both values, so the
file of comparisons is rewritten at the end where that happened.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from dpo_data.ingest import thumb_pairs
from dpo_data.ingest.convert import PART_ITEMS, REJECTED, THUMBED, VOTED, Job, Part, PartFiles, Texts
from dpo_data.schema import COMPARISONS, empty
from dpo_data.store.batches import TABLES, merge_attributes

FATES = {"voted": VOTED, "thumbs": THUMBED, "rejected": REJECTED}
MODULUS = 2**128


@dataclass(slots=True)
class BatchContents:
    """What the batch holds: rows by table, the fate of every record by file, and the digest of the content."""

    rows: Counter[str] = field(default_factory=Counter)
    fates: dict[int, bytearray] = field(default_factory=dict)
    sum: int = 0

    @property
    def digest(self) -> str:
        """Hex hash of the batch's content, whatever the order of its rows and the split into files and parts."""
        return f"{self.sum % MODULUS:032x}"

    def mark(self, file: int, record: int, fate: int) -> None:
        """Note what became of a raw record; a vote outranks a thumb, a thumb a reject."""
        fates = self.fates.setdefault(file, bytearray())
        if record >= len(fates):
            fates.extend(bytes(record + 1 - len(fates)))
        fates[record] = max(fates[record], fate)

    def of(self, file: int) -> dict[str, int]:
        """How many records of a file became what."""
        fates = self.fates.get(file, bytearray())
        return {name: fates.count(fate) for name, fate in FATES.items()}

    def became(self, fate: int) -> int:
        """How many records became this."""
        return sum(fates.count(fate) for fates in self.fates.values())


class Table:
    """One table of the batch, written row group by row group."""

    def __init__(self, path: Path, schema: pl.Schema) -> None:
        self.path = path
        self.schema = schema
        self.rows = 0
        self._arrow = arrow(empty(schema)).schema
        self._writer = pq.ParquetWriter(path, self._arrow, compression="zstd")

    def write(self, frame: pl.DataFrame) -> None:
        """Append the frame's columns of the schema."""
        if frame.height:
            self._writer.write_table(arrow(frame.select(self.schema.names())).cast(self._arrow))
            self.rows += frame.height

    def close(self) -> None:
        """Write the footer."""
        self._writer.close()


def arrow(frame: pl.DataFrame) -> pa.Table:
    """The frame in Arrow's oldest layout, which every Parquet reader knows."""
    return frame.to_arrow(compat_level=pl.CompatLevel.oldest())


def merge_parts(folder: Path, written: Iterable[PartFiles]) -> BatchContents:
    """Write the batch's four tables to `folder` from the parts, which are removed as they are read."""
    joined = BatchContents()
    with ExitStack() as stack:
        tables = {name: Table(folder / f"{name}.parquet", schema) for name, schema in TABLES.items()}
        for table in tables.values():
            stack.callback(table.close)
        seen = ComparisonIndex()
        thumbs = [path for part in written for path in _take(part, tables, seen, joined)]
        job = Job(0, folder, folder, None, 0, "", "", None, None, None)
        for pair_part in _paired(thumbs, job, joined):
            frames = pair_part.frames()
            tables["comparisons"].write(seen.new(frames["comparisons"]))
            tables["votes"].write(frames["votes"])
        for path in thumbs:
            frame = pl.read_parquet(path, glob=False)
            places = frame.select("file", "record").iter_rows()
            lone = [joined.fates[file][record] == THUMBED for file, record in places]
            tables["thumbs"].write(frame.filter(pl.Series(lone, dtype=pl.Boolean)))
            path.unlink()
    seen.settle(folder / "comparisons.parquet")
    joined.rows.update({name: table.rows for name, table in tables.items()})
    return joined


def _take(part: PartFiles, tables: dict[str, Table], seen: "ComparisonIndex", joined: BatchContents) -> Iterator[Path]:
    """Bring one part in and remove it; its thumbs wait as a file for the pairing."""
    joined.sum += part.digest
    for record, fate in part.fates:
        joined.mark(part.file, record, fate)
    for name, table in tables.items():
        path = part.stem.with_name(f"{part.stem.name}.{name}.parquet")
        if not path.is_file():
            continue
        if name == "thumbs":
            yield path
            continue
        frame = pl.read_parquet(path, glob=False)
        table.write(seen.new(frame) if name == "comparisons" else frame)
        path.unlink()


def _paired(thumbs: list[Path], job: Job, joined: BatchContents) -> Iterator[Part]:
    """The comparisons of opposite thumbs, in parts; their records become votes."""
    found = thumb_pairs.pairs(thumbs)
    texts = Texts()
    while chunk := list(islice(found, PART_ITEMS)):
        part = Part(job)
        for up, down in chunk:
            part.vote(thumb_pairs.judgement(up, down), texts, thumb_pairs.origin(up, down), up["source"])
            for row in (up, down):
                joined.mark(row["file"], row["record"], VOTED)
        yield part


class ComparisonIndex:
    """Which comparisons the batch holds, and the attributes that came with later sights of them."""

    def __init__(self) -> None:
        self._facts: dict[str, str] = {}
        self._later: list[pl.DataFrame] = []

    def new(self, frame: pl.DataFrame) -> pl.DataFrame:
        """The comparisons of a part that were not there yet; of the others, attributes that differ are kept aside."""
        fresh, changed = [], []
        for key, facts in frame.select("comparison_id", "attributes_hash").iter_rows():
            known = self._facts.get(key)
            fresh.append(known is None)
            changed.append(known is not None and known != facts and facts != "")
            if known is None:
                self._facts[key] = facts
        if any(changed):
            self._later.append(frame.filter(pl.Series(changed)).select("comparison_id", "attributes"))
        return frame if all(fresh) else frame.filter(pl.Series(fresh, dtype=pl.Boolean))

    def settle(self, path: Path) -> None:
        """Merge the attributes kept aside into the file of comparisons, row group by row group."""
        if not self._later:
            return
        later = pl.concat(self._later).unique()
        rewritten = Table(path.with_suffix(".merged"), COMPARISONS)
        file = pq.ParquetFile(path)
        for group in range(file.num_row_groups):
            frame = pl.DataFrame(pl.from_arrow(file.read_row_group(group)))
            both = pl.concat([frame.select("comparison_id", "attributes"), later]).join(
                frame.select("comparison_id"), on="comparison_id", how="semi"
            )
            merged = merge_attributes(both.lazy()).collect().rename({"attributes": "merged"})
            joined = frame.join(merged, on="comparison_id", how="left", maintain_order="left")
            rewritten.write(joined.with_columns(attributes=pl.coalesce("merged", "attributes")))
        rewritten.close()
        rewritten.path.replace(path)
