"""Verdicts of reviewers: appended one line at a time, flushed to the disk before the page says thanks.

`<store>/reviews/<reviewer>.jsonl` is an ordinary source of the next refresh (formats/dpo_review.py). Who
skips or is unsure has not voted, so those lines stand in `reviews/passed/`, where no refresh reads them; they only keep
a row from being shown again.
"""

import fcntl
import json
import os
import re
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from dpo_data.ids import coin
from dpo_data.schema import DataError
from dpo_data.store.atomic import sync_folder

FOLDER = "reviews"
SAID = ("first", "second", "tie", "both_bad", "unsure", "skip")
"""What a reviewer can say; first and second are places on the page, not sides of the store."""
PASSED = ("unsure", "skip")
_NAME = re.compile(r"\w[\w.@-]{0,63}")
_MOST_NAME_BYTES = 200  # with .jsonl it must fit into the 255 bytes that file systems allow
MOST_NOTE = 2000


@dataclass(frozen=True, slots=True)
class Verdict:
    """One verdict as it was given. `choice` is a, b, tie, both_bad, unsure or skip; `preferred` and `reasons` are what
    the pipeline had decided then; `again`: the reviewer had judged this comparison, and seen its story, before."""

    comparison_id: str
    choice: str
    annotator: str
    at: str  # ISO 8601, UTC
    shown_first: str  # a or b
    version: str
    queue: str
    preferred: str | None
    reasons: tuple[str, ...]
    note: str = ""
    again: bool = False


def reviewer(name: str) -> str:
    """A reviewer's name that is also a file's name, or `DataError`."""
    name = name.strip()
    if len(name.encode("utf-8", "surrogatepass")) > _MOST_NAME_BYTES:
        raise DataError(
            f"{name[:20]!r}… is {len(name)} characters and {len(name.encode('utf-8', 'surrogatepass'))} bytes long, "
            f"expected at most 64 characters and {_MOST_NAME_BYTES} bytes, since it names a file. Give a shorter name."
        )
    if not _NAME.fullmatch(name):
        raise DataError(
            f"{name[:80]!r} cannot be a reviewer's name. Expected letters, digits, '.', '_', '-' or '@', at most 64, "
            "beginning with a letter or digit: lena, lena.k, lena@example.org."
        )
    return name


def first_shown(name: str, comparison_id: str) -> str:
    """The side that this reviewer sees first: a fair coin of both, so that it is the same when the page is reloaded."""
    return "a" if coin(f"{name} {comparison_id}", "shown first") < 0.5 else "b"


def choice_of(said: str, shown_first: str) -> str:
    """What was said about places on the page, as a choice between sides. Raises `DataError` for anything else."""
    if said not in SAID:
        raise DataError(f"A verdict of {said[:40]!r}; expected one of {', '.join(SAID)}.")
    other = "b" if shown_first == "a" else "a"
    return {"first": shown_first, "second": other}.get(said, said)


def append(store: Path, verdict: Verdict, text: dict[str, Any]) -> Path:
    """Add a verdict to its reviewer's file and flush it; `text` is the comparison's row of schema COMPARISONS.

    A line that a crash cut off is closed first, so that it spoils no other.
    """
    folder = store / FOLDER / "passed" if verdict.choice in PASSED else store / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{reviewer(verdict.annotator)}.jsonl"
    texts = {name: text[name] for name in ("prompt", "response_a", "response_b")}
    line = json.dumps({**asdict(verdict), **texts}, ensure_ascii=True, allow_nan=False).encode() + b"\n"
    with path.open("a+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        if file.seek(0, os.SEEK_END) and not _ends_line(file.fileno()):
            line = b"\n" + line
        file.write(line)
        file.flush()
        os.fsync(file.fileno())
    sync_folder(folder)
    return path


def _ends_line(handle: int) -> bool:
    return os.pread(handle, 1, os.fstat(handle).st_size - 1) == b"\n"


def files(store: Path) -> list[Path]:
    """The files that are votes, in the order of their names."""
    return sorted((store / FOLDER).glob("*.jsonl"))


def read(store: Path) -> list[Verdict]:
    """Every verdict, votes and passes, by reviewer and in the order given; half-written lines are left out."""
    passed = sorted((store / FOLDER / "passed").glob("*.jsonl"))
    lines = (line for path in (*files(store), *passed) for line in path.read_bytes().splitlines())
    found = [verdict for line in lines if (verdict := parse(line)) is not None]
    return sorted(found, key=lambda verdict: (verdict.annotator, verdict.at))


def parse(line: bytes) -> Verdict | None:
    """The verdict of a line; None where a crash cut it off or a hand wrote it: a refresh rejects it with a sentence."""
    try:
        record = json.loads(line)
        known = {name: record[name] for name in Verdict.__dataclass_fields__ if name in record}
        verdict = Verdict(**{**known, "reasons": tuple(known["reasons"])})
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    texts = (verdict.comparison_id, verdict.annotator, verdict.at, verdict.version, verdict.choice)
    return verdict if all(isinstance(text, str) for text in texts) else None


def now(moment: datetime) -> str:
    """A moment as verdicts carry it."""
    return moment.isoformat(timespec="microseconds")
