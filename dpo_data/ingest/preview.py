"""What an append of a file would do, without writing anything: format, counts, first rows, rejects by reason."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dpo_data.formats.detect import reader
from dpo_data.ingest.accounting import check_fates, stamps, unchanged
from dpo_data.ingest.convert import REJECTED, THUMBED, VOTED
from dpo_data.ingest.merge import BatchContents
from dpo_data.reading.files import Piece, count, fixed
from dpo_data.reading.records import Item, Reader, Reject, Vote

SHOWN = 3  # rows of each kind that are shown
SHOWN_REJECTS = 20


@dataclass(slots=True)
class Inspection:
    """What a file holds. `rows` are the first votes and thumbs, `rejects` the first rejects, as plain dictionaries."""

    path: str
    format: str
    records: int
    votes: int = 0
    thumbs: int = 0
    ties: int = 0
    rejected: int = 0
    annotators: int = 0
    rows: list[dict[str, Any]] = field(default_factory=list)
    rejects: list[dict[str, str]] = field(default_factory=list)
    reasons: dict[str, int] = field(default_factory=dict)


def inspect(path: Path, format: str | None = None, columns: Mapping[str, Any] | None = None) -> Inspection:
    """Read the whole file as an append would, and write nothing. `DataError` when it cannot be read as a whole."""
    name, read = reader(path, format, columns)
    before = stamps([path, *read.companions(path)])
    piece = fixed(path, before[path].size) if read.parse is not None else None
    with unchanged(before, growing=[path] if piece is not None else []):
        return _inspected(path, piece, name, read)


def _inspected(path: Path, piece: Piece | None, name: str, read: Reader) -> Inspection:
    seen = Inspection(str(path), name, count(piece or path))
    reasons: Counter[str] = Counter()
    annotators: set[str | None] = set()
    fates = BatchContents()
    for item in read.read(piece or path):
        fate = REJECTED if isinstance(item, Reject) else VOTED if isinstance(item, Vote) else THUMBED
        for record in item.records:
            fates.mark(0, record, fate)
        if isinstance(item, Reject):
            seen.rejected += 1
            reasons[item.reason] += 1
            if len(seen.rejects) < SHOWN_REJECTS:
                origin = f"{path.name}:{','.join(map(str, item.records))}"
                seen.rejects.append({"origin": origin, "reason": item.reason, "record": item.text[:400]})
            continue
        annotators.add(item.annotator)
        _count(seen, item)
    check_fates(path, seen.records, fates.of(0))
    seen.annotators = len(annotators - {None})
    seen.reasons = dict(reasons.most_common())
    return seen


def _count(seen: Inspection, item: Item) -> None:
    if isinstance(item, Vote):
        seen.votes += 1
        seen.ties += item.choice == "tie"
        shown = {"first": item.first, "second": item.second, "choice": item.choice, "strength": item.strength}
    elif isinstance(item, Reject):
        return
    else:
        seen.thumbs += 1
        shown = {"completion": item.completion, "label": item.label}
    if len(seen.rows) < SHOWN:
        who = {"annotator": item.annotator, "annotator_kind": item.annotator_kind}
        at = item.at.isoformat() if item.at else None
        facts = {"attributes": dict(item.attributes), "at": at, "records": list(item.records)}
        seen.rows.append({"prompt": [dict(message) for message in item.prompt], **shown, **who, **facts})
