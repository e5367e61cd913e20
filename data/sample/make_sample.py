"""Write the raw files of this folder and `truth.json` from a seed: `python data/sample/make_sample.py [FOLDER]`.

Texts come from `questions.py` and `answers.py`, files from `votes.py`, `preferences.py` and `scores.py`, which record
what they plant in `truth.json`. The output is reproducible byte by byte (of the .gz file: every byte inside).
"""

import gzip
import json
import sys
from pathlib import Path
from random import Random

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1])]

from drafts import SWAPPED_DESK, Deck  # noqa: E402
from preferences import chats, forum, transcripts  # noqa: E402
from scores import rated, thumbs  # noqa: E402
from truth import Truth  # noqa: E402
from votes import judged, studio, triples  # noqa: E402

SEED = 29


def make() -> dict[str, bytes]:
    """Every file of the sample by name, uncompressed, and truth.json."""
    rng, truth = Random(SEED), Truth()
    deck = Deck(rng)
    truth.plants["flipped_slice"] = {
        "slice": "desk",
        "value": SWAPPED_DESK,
        "comparisons": {},  # by source, near copies not counted
        "held_out_at_least": {"validation": 15, "test": 15},  # prompts that the recipe's splits must leave it
    }
    files = {"studio.csv": studio(deck, truth, rng)}
    files["judged.jsonl"], judged_drafts = judged(deck, truth, rng)
    files["transcripts.jsonl.gz"], told = transcripts(deck, truth, rng)
    files["chats.jsonl"] = chats(deck, truth, rng, told)
    files["forum.jsonl"] = forum(deck, truth, rng)
    files["thumbs.jsonl"] = thumbs(deck, truth, rng)
    files["rated.json"] = rated(deck, truth, rng)
    files["triples.json"] = triples(deck, truth, rng, judged_drafts)
    report = {
        "seed": SEED,
        "records": sum(file["records"] for file in truth.files.values()),
        "files": truth.files,
        "plants": truth.plants,
    }
    files["truth.json"] = (json.dumps(report, ensure_ascii=False, indent=1, sort_keys=True) + "\n").encode()
    return files


def write(folder: Path) -> None:
    """Write the files, those named .gz compressed without a time stamp."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in make().items():
        data = gzip.compress(content, mtime=0) if name.endswith(".gz") else content
        (folder / name).write_bytes(data)
        print(f"{name}: {len(data):,} bytes")


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE)
