"""Comparisons that hold a benchmark's own items: word for word, or a prompt that asks the same in other words.

By words as Tulu 3 (2411.15124, 3.3) and Olmo 3 do it: an item is leaked when at least half of its words lie in 8-grams
that one comparison (prompt and responses) also has. By meaning, where embeddings are measured: the item nearest to the
prompt, since reworded items are missed by any n-gram and teach the benchmark all the same (Soft Contamination,
2602.12413). An item shorter than eight words counts by words only where it is a whole prompt or response.
"""

from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
from pydantic import Field

from dpo_data.executor import Executor
from dpo_data.ids import text_hash
from dpo_data.settings import Settings
from dpo_data.text import benchmarks, blocks, embeddings, minhash, semantic_neighbours, stamps
from dpo_data.text.benchmarks import Benchmark
from dpo_data.text.token_hashes import tokens

COLUMNS = pl.Schema({"comparison_id": pl.String(), "benchmark_overlap": pl.Float64(), "benchmark_item": pl.String()})
_NEAREST = pl.Schema({"hash": pl.String(), "benchmark_similarity": pl.Float64(), "benchmark_neighbour": pl.String()})
METHOD = f"contamination 1, {minhash.METHOD}"  # raise it when the same texts would be found to share otherwise
NEAR_METHOD = f"contamination by meaning 1, {semantic_neighbours.METHOD}"
_FEWEST_WORDS = 5  # of an item that is compared by meaning: "Thanks!" and "Yes" are near to half of all short prompts
_TEXTS = 50_000  # prompts looked at together: 75 MB of vectors


class ContaminationLimits(Settings):
    """Which benchmarks must not leak, and how much of an item is a leak."""

    benchmarks: tuple[str, ...] = ()  # files or folders
    words: int = Field(default=8, ge=3)
    min_share: float = Field(default=0.5, gt=0, le=1)
    # Cosine (all-MiniLM-L6-v2) from which a prompt counts as a reworded item; null only measures. At 0.85: 10 of 20
    # paraphrases found, 7 of 20 questions on the same topic dropped with them; at 0.90: 7 and 2. Of 2,132 prompts of
    # five published sets it finds one of the 80 Vicuna questions, which asks the same. No cosine separates reworded
    # questions from similar ones: read the list of what was dropped.
    min_cosine: float | None = Field(default=0.85, ge=0.5, le=1)


def measure(texts: pl.DataFrame, benchmark: Benchmark) -> pl.DataFrame:
    """`comparison_id, benchmark_overlap, benchmark_item` of a block: the item most of whose words the comparison holds.

    `texts`: comparison_id, prompt (as one text), response_a, response_b. No shared run is an overlap of 0.
    """
    parts = [minhash.shingles(tokens(texts[name]).words(), benchmark.words) for name in texts.columns[1:]]
    runs = minhash.join(*parts)
    row = np.repeat(np.arange(len(texts), dtype=np.uint32), np.diff(runs.offsets))
    known = benchmark.runs["run"].to_numpy()
    place = np.searchsorted(known, runs.values) if len(known) else np.zeros(len(row), np.int64)
    hit = (place < len(known)) & (known[np.minimum(place, len(known) - 1)] == runs.values) if len(known) else row < 0
    covered = (
        pl.DataFrame({"row": row[hit], "run": runs.values[hit]})
        .unique()
        .join(benchmark.runs, on="run")
        .with_columns(word=pl.int_ranges(pl.col("start"), pl.col("start") + benchmark.words, dtype=pl.UInt32))
        .explode("word")
        .join(benchmark.items.drop("text"), on="item")
        .filter(pl.col("word") < pl.col("length"))
        .group_by("row", "item", "name", "length")
        .agg(pl.col("word").n_unique())
        .with_columns(benchmark_overlap=pl.col("word") / pl.col("length"))
        .sort("row", "benchmark_overlap", "item", descending=[False, True, False])
        .unique("row", keep="first", maintain_order=True)
        .select("row", "benchmark_overlap", benchmark_item="name")
    )
    return (
        texts.select("comparison_id")
        .with_row_index("row")
        .join(covered, on="row", how="left", maintain_order="left")
        .select("comparison_id", pl.col("benchmark_overlap").fill_null(0.0), "benchmark_item")
    )


def batch_file(folder: Path, limits: ContaminationLimits) -> Path:
    """Where a batch keeps its overlaps with these benchmarks."""
    return folder / f"benchmarks-{digest(limits)}.parquet"


def measure_batch(folder: Path, limits: ContaminationLimits, prompt: pl.Expr, executor: Executor | None = None) -> None:
    """Write the overlaps of a batch beside it, once for each set of benchmarks; `prompt` makes one text of messages."""
    blocks.write(batch_file(folder, limits), partial(_measure_block, limits, prompt), COLUMNS, METHOD, executor)


def _measure_block(limits: ContaminationLimits, prompt: pl.Expr, comparisons: pl.DataFrame) -> pl.DataFrame:
    texts = comparisons.select("comparison_id", "response_a", "response_b", prompt=prompt)
    return measure(texts, _load(limits))


def near_file(folder: Path, limits: ContaminationLimits, model: str) -> Path:
    """Where a batch keeps the benchmark items that its prompts are nearest to, by `model`."""
    return folder / f"benchmark-neighbours-{digest(limits)}-{embeddings.fingerprint(model)}.parquet"


def measure_neighbours(
    folder: Path, hashes: pl.DataFrame, store: Path, limits: ContaminationLimits, model: str
) -> dict[str, int]:
    """Write the nearest benchmark item of a batch's prompts beside it, once; how many items were embedded or cached.

    `hashes`: comparison_id, and hashes of texts embedded before, any of which may ask the item (the conversation, the
    last question). Items are embedded and kept as any text is.
    """
    target = near_file(folder, limits, model)
    if stamps.made_by(target, NEAR_METHOD):
        return {}
    asked = _load(limits).items.filter(pl.col("length") >= _FEWEST_WORDS)
    asked = asked.with_columns(pl.col("text").str.slice(0, embeddings.READ))
    items = embeddings.embed(asked["text"], store, model)
    known = asked.select("name", hash=pl.Series([text_hash(text) for text in asked["text"]], dtype=pl.String))
    known = known.unique("hash", keep="first", maintain_order=True)
    names = items.hashes.to_frame("hash").join(known, on="hash", how="left", maintain_order="left")["name"]
    long = hashes.unpivot(index="comparison_id", value_name="hash").drop_nulls("hash")
    wanted = long["hash"].unique().sort()
    found = [pl.DataFrame(schema=_NEAREST)]
    for start in range(0, len(wanted) if len(items.hashes) else 0, _TEXTS):
        texts = embeddings.recall(wanted[start : start + _TEXTS], store, model)
        place, cosine = semantic_neighbours.nearest(texts.vectors, items.vectors)
        columns = (texts.hashes, pl.Series(cosine), names.gather(place))
        found.append(pl.DataFrame(dict(zip(_NEAREST, columns, strict=True))))
    best = (
        long.join(pl.concat(found), on="hash")
        .sort("comparison_id", "benchmark_similarity", "benchmark_neighbour", descending=[False, True, False])
        .unique("comparison_id", keep="first", maintain_order=True)
        .select("comparison_id", "benchmark_similarity", "benchmark_neighbour")
    )
    ids = hashes.select("comparison_id")
    stamps.write(ids.join(best, on="comparison_id", how="left", maintain_order="left"), target, NEAR_METHOD)
    return {"texts_embedded": items.embedded, "texts_from_cache": items.cached}


def rules(limits: ContaminationLimits) -> dict[str, pl.Expr]:
    """A comparison that holds at least `min_share` of a benchmark item, or whose prompt asks one in other words."""
    found = {"contaminated": pl.col("benchmark_overlap") >= limits.min_share}
    if limits.min_cosine is not None:
        found["contaminated_in_other_words"] = pl.col("benchmark_similarity") >= limits.min_cosine
    return found


def found_items(ledger: pl.DataFrame, limits: ContaminationLimits) -> dict[str, str]:
    """Texts of the benchmark records a ledger names, by name (`file:record`), the strings of a record joined by /."""
    if not limits.benchmarks:
        return {}
    named = pl.concat([ledger.select(name="benchmark_item"), ledger.select(name="benchmark_neighbour")]).unique()
    items = _load(limits).items.join(named, on="name", how="semi", maintain_order="left")
    joined = items.group_by("name", maintain_order=True).agg(pl.col("text").str.join(" / "))
    return dict(joined.iter_rows())


def _load(limits: ContaminationLimits) -> Benchmark:
    return benchmarks.load(limits.benchmarks, limits.words)


def digest(limits: ContaminationLimits) -> str:
    """Hash of the benchmarks' items."""
    return _load(limits).digest
