"""A vector for every word piece, distilled once from an embedding model: texts by look-up, some hundred times faster.

The model reads every piece among seven others and eight words drawn as often as they are used (Zipf), and what it makes
of the piece there is averaged. The mean of all pieces as used and the four directions they share most go ("all but the
top", Mu and Viswanath, ICLR 2018); rare pieces count more (SIF, Arora et al., ICLR 2017), and a piece counts once a
text. No corpus is needed, so one model gives one table everywhere. It knows words and not their order, so
a "not" or a swapped name is nothing to it; how far it agrees with the model says tests/bench/bench_embeddings.py.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

if TYPE_CHECKING:
    from tokenizers import Tokenizer

METHOD = "1"  # raise it when the same model would give another table

_ROUNDS = 2  # readings of every piece; a third moves the agreement by less than .01
_BESIDE, _DRAWN = 8, 8  # pieces of a reading: in turn, and drawn by use
_SHARED = 4  # directions dropped; 0 to 8 were tried on three published sets
_SIF = 1e-5  # a of a / (a + p); 1e-3 to 3e-7 were tried
_PIECES = 254  # of a text: what all-MiniLM-L6-v2 reads of it
_BATCH = 256

Vectors = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class StaticTable:
    """Weighted vectors of the pieces, shape (pieces, width), and the tokenizer that finds a text's pieces."""

    vectors: Vectors
    tokenizer: "Tokenizer"

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Vectors of unit length, shape (texts, width); zeros for a text without a piece."""
        found = [np.unique(read.ids) for read in self.tokenizer.encode_batch_fast(texts, add_special_tokens=False)]
        ends = np.cumsum([0, *map(len, found)])
        pieces = np.concatenate(found) if found else np.empty(0, np.int64)
        bags = sparse.csr_array((np.ones(len(pieces), np.float32), pieces, ends), shape=(len(found), len(self.vectors)))
        sums = bags @ self.vectors
        lengths = np.linalg.norm(sums, axis=1, keepdims=True)
        return np.asarray(np.divide(sums, lengths, out=np.zeros_like(sums), where=lengths > 0), np.float32)


def read(folder: Path) -> StaticTable:
    """The table that `write` left in `folder`."""
    from tokenizers import Tokenizer

    vectors = np.load(folder / "vectors.npy", mmap_mode="r")
    return StaticTable(vectors, Tokenizer.from_file(str(folder / "tokenizer.json")))


def write(table: StaticTable, folder: Path) -> None:
    """Make `folder`, whole or not at all; where another process was faster, its table stays."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".table-", dir=folder.parent) as hidden:
        made = Path(hidden) / "table"
        made.mkdir()
        np.save(made / "vectors.npy", table.vectors)
        table.tokenizer.save(str(made / "tokenizer.json"))
        try:
            made.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise


def distil(model: Any) -> StaticTable:
    """The table of a loaded sentence-transformers `model`: a minute or two of one core for all-MiniLM-L6-v2."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_str(model.tokenizer.backend_tokenizer.to_str())
    tokenizer.no_padding()
    tokenizer.enable_truncation(_PIECES)
    use = _use([tokenizer.id_to_token(piece) or "" for piece in range(tokenizer.get_vocab_size())])
    drawn = np.where(use < use.max(), use, 0)  # marks and single letters, which no rank tells apart, are not drawn
    drawn /= drawn.sum()
    vectors = _in_company(model, drawn)
    vectors -= drawn @ vectors
    _, directions = np.linalg.eigh((vectors * drawn[:, None]).T @ vectors)
    shared = directions[:, -_SHARED:]
    vectors -= (vectors @ shared) @ shared.T
    weighted = vectors * (_SIF / (_SIF + use))[:, None]
    return StaticTable(weighted.astype(np.float32), tokenizer)


def _use(names: Sequence[str]) -> Floats:
    """How often each piece is used, by Zipf's law: vocabularies list words from common to rare.

    Single characters and the tokenizer's own marks ([UNK], <s>) stand before the words and have the rank of the first.
    """
    words = [len(name.strip("#▁Ġ")) > 1 and not (name[0] in "[<" and name[-1] in "]>") for name in names]
    use = 1 / (np.cumsum(words) + 2)
    return np.asarray(use / use[words].sum(), np.float64)


def _in_company(model: Any, drawn: Floats) -> Floats:
    """What the model makes of each piece, over all its readings, shape (pieces, width)."""
    tokenizer: Any = model.tokenizer
    before = [mark for mark in (tokenizer.cls_token_id,) if mark is not None]
    after = [mark for mark in (tokenizer.sep_token_id,) if mark is not None]
    luck = np.random.default_rng(0)
    sums, counts = None, np.zeros(len(drawn))
    for rows in _readings(luck, drawn):
        given = tokenizer.pad({"input_ids": [[*before, *row, *after] for row in rows.tolist()]}, return_tensors="pt")
        made = model.forward(dict(given.to(model.device)))["token_embeddings"].detach().cpu().numpy()
        seen = made[:, len(before) : len(before) + rows.shape[1]].reshape(rows.size, -1)
        sums = np.zeros((len(drawn), seen.shape[1])) if sums is None else sums
        np.add.at(sums, rows.ravel(), seen)
        np.add.at(counts, rows.ravel(), 1)
    assert sums is not None and counts.min() > 0
    return sums / counts[:, None]


def _readings(luck: np.random.Generator, drawn: Floats) -> list[npt.NDArray[np.int64]]:
    """Batches of mixed pieces, shape (readings, 16): every piece in each round, words as often as they are used."""
    batches = []
    for _ in range(_ROUNDS):
        pieces = luck.permutation(len(drawn))
        pieces = np.concatenate([pieces, pieces[: -len(pieces) % _BESIDE]]).reshape(-1, _BESIDE)
        words = luck.choice(len(drawn), (len(pieces), _DRAWN), p=drawn)
        mixed = luck.permuted(np.concatenate([pieces, words], axis=1), axis=1)
        batches += [mixed[start : start + _BATCH] for start in range(0, len(mixed), _BATCH)]
    return batches
