"""The embedding model against the static table made from it: texts a second, and how far they agree.

    python tests/bench/bench_embeddings.py

On published sets beside the project, each in a store of its own. Agreement is told on the cosines that the rules read
(the two responses from where they part; the prompt against each response) and in decisions: rows that the limits of the
demo's recipe keep with one and drop with the other, and pairs of prompts that one calls the same and the other not.
"""

import os
import platform
import tempfile
import time
from itertools import combinations
from pathlib import Path

import numpy as np
import polars as pl
from scipy.stats import spearmanr

from dpo_data import curate
from dpo_data.config import CurationConfig
from dpo_data.ingest import paths
from dpo_data.ingest.append import append_batch
from dpo_data.measures import similarity
from dpo_data.store import batches
from dpo_data.text import embeddings, static_embeddings
from flows.recipe import load

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT.parent / "shared" / "data"
SETS = ("pandalm/testset-v1.json", "hh-rlhf-harmless", "llamafactory-demo/dpo_en_demo.json")
STATIC = embeddings.STATIC + embeddings.DEFAULT
MODELS = (embeddings.DEFAULT, STATIC)
COSINES = {
    "chosen against rejected": ("similarity",),
    "prompt against response": ("similarity_prompt_a", "similarity_prompt_b"),
}


def texts_of(store: Path) -> pl.Series:
    """What the store would embed, each text once."""
    parts = similarity.pieces(batches.open_batches(store).comparisons().collect())
    return pl.concat([parts[name] for name in parts.columns[1:]]).drop_nulls().unique()


def speed(encoder: embeddings.Encoder, folder: Path, texts: pl.Series) -> str:
    """Texts a second of a loaded encoder, its vectors written as the cache's are."""
    shard = embeddings.Shard(folder, texts.to_list(), texts.to_list())
    begun = time.perf_counter()
    encoder(shard)
    return f"{len(texts) / (time.perf_counter() - begun):,.0f} texts/s"


def agreement(full: pl.DataFrame, static: pl.DataFrame) -> list[str]:
    """Pearson and Spearman of the cosines, and their quartiles, since the scales differ."""
    lines = []
    for name, columns in COSINES.items():
        both = [np.concatenate([frame[column].to_numpy() for column in columns]) for frame in (full, static)]
        known = ~np.isnan(both[0]) & ~np.isnan(both[1])
        both = [cosines[known] for cosines in both]
        quartiles = " against ".join("/".join(f"{q:.2f}" for q in np.quantile(x, (0.25, 0.5, 0.75))) for x in both)
        pearson, spearman = np.corrcoef(*both)[0, 1], spearmanr(*both).statistic
        lines.append(f"{name}: Pearson {pearson:.2f}, Spearman {spearman:.2f}, n {known.sum()}; quartiles {quartiles}")
    return lines


def decisions(full: pl.DataFrame, static: pl.DataFrame, words: pl.DataFrame, config: CurationConfig) -> list[str]:
    """Rows dropped for likeness by either, rows kept by one alone, and prompts grouped by either."""
    lines, frames = [], [curate.decide(frame, config) for frame in (full, static)]
    alike = [frame["reasons"].list.contains("responses_too_similar") for frame in frames]
    both = (alike[0] & alike[1]).sum()
    lines.append(f"too similar: {alike[0].sum()} by the model, {alike[1].sum()} by the table, {both} by both")
    kept = [frame["reasons"].list.len() == 0 for frame in frames]
    lines.append(f"kept or dropped otherwise: {(kept[0] != kept[1]).sum()} of {len(full)} comparisons")
    by_words = same_group(words)
    together = [same_group(frame) - by_words for frame in frames]
    lines.append(
        f"pairs of prompts in one group: {len(by_words)} by their words; besides, {len(together[0])} by the model, "
        f"{len(together[1])} by the table, {len(together[0] & together[1])} by both"
    )
    return lines


def same_group(ledger: pl.DataFrame) -> set[tuple[str, str]]:
    groups = ledger.select("prompt_group", "prompt_hash").unique().drop_nulls().sort("prompt_hash")
    members = groups.group_by("prompt_group").agg("prompt_hash")["prompt_hash"].to_list()
    return {pair for group in members for pair in combinations(group, 2)}


def neighbours(store: Path, texts: pl.Series) -> list[str]:
    """How many of the ten prompts nearest by the model are among the table's ten nearest."""
    nearest = []
    for model in MODELS:
        vectors = embeddings.embed(texts, store, model).vectors
        cosines = vectors @ vectors.T
        np.fill_diagonal(cosines, -1)
        nearest.append(np.argsort(-cosines, axis=1)[:, :10])
    shared = np.mean([len(np.intersect1d(one, two)) / 10 for one, two in zip(*nearest, strict=True)])
    return [f"ten nearest prompts shared: {shared:.0%}, n {len(texts)}"]


def main() -> None:
    if not DATA.is_dir():
        raise SystemExit("no published sets beside the project")
    limits = load(ROOT / "data" / "sample" / "recipe.yaml").curation
    config = limits.model_copy(update={"slices": (), "targets": {}, "tokenizer": None})
    config = config.model_copy(update={"contamination": curate.ContaminationLimits()})
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    threads = os.environ.get("OMP_NUM_THREADS", "all")
    print(f"{time.strftime('%Y-%m-%d')}, {machine}, {threads} threads of torch, load {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        table = static_embeddings.distil(embeddings.load(embeddings.DEFAULT))
        print(f"table of {table.vectors.shape[0]:,} pieces made in {time.perf_counter() - begun:.0f} s")
        for name in SETS:
            store = Path(folder) / name.partition("/")[0]
            kept = store / "cache" / "static" / embeddings.fingerprint(STATIC)  # where the store looks for it
            static_embeddings.write(table, kept)
            encoders = {model: embeddings.Encoder(model, kept if model == STATIC else None) for model in MODELS}
            append_batch(store, paths.find(str(DATA / name)), "published")
            texts = texts_of(store)
            length = texts.str.len_chars().mean()
            print(f"\n{name}: {len(texts)} texts of {length:.0f} characters on average")
            some = texts.sort().gather_every(max(1, len(texts) // 512))
            told = [
                f"{speed(encoders[model], store / 'timed' / str(at), some)} by {model}"
                for at, model in enumerate(MODELS)
            ]
            print("  " + ", ".join(told), flush=True)
            ledgers = [
                curate.measure(store, config.model_copy(update={"embedding_model": model})) for model in (*MODELS, None)
            ]
            prompts = (
                similarity.pieces(batches.open_batches(store).comparisons().collect())["topic"].drop_nulls().unique()
            )
            for line in (*agreement(*ledgers[:2]), *decisions(*ledgers, config), *neighbours(store, prompts)):
                print("  " + line, flush=True)


if __name__ == "__main__":
    main()
