"""Text about sources and batches: how each was read, what supersedes what, and the command that takes one out."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.environment import STORE
from flows.output import columns

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from dpo_data.analysis.forgetting import Change
    from dpo_data.analysis.sources import BatchRow


def change_lines(change: "Change", undo: bool, store: Path) -> list[str]:
    """What a forget or its undo did, which versions hold the name, and how to take it back."""
    what = f"{change.kind} {change.name!r}"
    fewer = change.votes_before - change.votes_after
    if not change.changed:
        first = f"forgotten {what} was forgotten before; nothing changed."
    elif undo:
        first = f"restored  {what}: {_count(-fewer, 'votes')} back in every version from the next refresh on."
    else:
        first = f"forgotten {what}: {_count(fewer, 'votes')} left out of every version from the next refresh on."
    lines = [first]
    if change.changed and (fewer < 0) != undo:
        lines.append("Note: more votes came in than went, because an earlier reading that it superseded counts again.")
    lines.append(f"still in  {', '.join(change.still_in) or 'no version'}")
    if not undo:
        lines.append(f"undo      {_forget(change.kind, change.name, store, undo=True)}")
    return lines


def batch_lines(rows: "Sequence[BatchRow]", store: Path) -> list[str]:
    """One line per batch, the newest first, then how those with a mapping of columns were read; times are UTC."""
    if not rows:
        return [f"{store} has no batches: ingest a source first (`dpo refresh`)."]
    names = ("batch", "source", "read", "files", "format", "records", "votes", "thumbs", "rejects", "state")
    table: list[tuple[str, ...]] = [names]
    for row in reversed(rows):
        files = row.files[0] if len(row.files) == 1 else f"{len(row.files)} files"
        counts = (str(count) for count in (row.records, row.votes, row.thumbs, row.rejects))
        formats = ", ".join(row.formats)
        table.append((row.batch, row.source, f"{row.at:%Y-%m-%d %H:%M}", files, formats, *counts, _state(row)))
    lines = columns(table, indent="")
    for row in reversed(rows):
        said = {**(row.columns or {}), **({"annotator_kind": row.annotator_kind} if row.annotator_kind else {})}
        if said:
            lines.append(f"{row.batch} was read with {', '.join(f'{name}: {value}' for name, value in said.items())}")
    return lines


def _state(row: "BatchRow") -> str:
    by = ", ".join(sorted(set(row.superseded.values())))
    if row.state == "superseded":
        return f"superseded by {by}"
    if row.state == "partly superseded":
        return f"{len(row.superseded)} of {len(row.files)} files superseded by {by}"
    return "counts, not in the recipe" if row.state == "counts" and row.in_recipe is False else row.state


def reading_lines(ingested: "Sequence[Mapping[str, Any]]", store: Path) -> list[str]:
    """What the new readings of a refresh supersede, what counts beside them, and what is in the store twice."""
    return [line for source in ingested for line in _reading_lines(source["source"], source, store)]


def _reading_lines(name: str, source: "Mapping[str, Any]", store: Path) -> "Iterator[str]":
    for old in source.get("supersedes", ()):
        why = "was read another way" if old["why"] == "reading" else "has other content"
        counts = ", ".join(_count(old[kind], kind) for kind in ("votes", "thumbs", "rejects") if old[kind])
        yield (
            f"replaced  {name}: {old['file']} {why}; supersedes the reading of {old['read'][:16].replace('T', ' ')} "
            f"(batch {old['batch']}): {counts or 'nothing'} left out"
        )
    for other in source.get("beside", ()):
        because = (
            "its thumbs are paired with those of another file"
            if other["paired"]
            else f"{other['of'] - other['shared']} of {other['of']} comparisons and thumbs are not in the new content"
        )
        yield (
            f"both      {name}: {other['file']} was read before with other content ({_batches(other['batches'])}); "
            f"{because}, so all count, each vote once. If the new content corrects the old: "
            f"{_forget('batch', other['batches'][-1], store)}"
        )
    if source.get("elsewhere"):
        yield (
            f"twice     {name}: the same content was read for another source too (batch "
            f"{', '.join(source['elsewhere'])}), and votes of both sources count. To take that one out: "
            f"{_forget('batch', source['elsewhere'][0], store)}"
        )
    if source.get("forgotten"):
        undo = _forget("source", name, store, undo=True)
        yield f"forgotten {name}: nothing of this source counts. To take it back: {undo}"


def _batches(names: "Sequence[str]") -> str:
    return f"batch {names[-1]}" if len(names) == 1 else f"{len(names)} batches, the newest {names[-1]}"


def departed_lines(gone: "Sequence[Mapping[str, Any]]", store: Path) -> list[str]:
    """Sources that are in the store and not in the recipe, each with the command that takes it out."""
    return [
        f"departed  {row['source']} is not in the recipe, and its {_count(row['votes'], 'votes')} (batches: "
        f"{row['batches']}) still count. To take it out: {_forget('source', row['source'], store)}"
        for row in gone
    ]


def contradicted_lines(sources: "Sequence[Mapping[str, Any]]", store: Path) -> list[str]:
    """Sources whose comparisons nearly all contradict themselves, the batches that do, and the command."""
    return [
        f"conflict  {row['source']}: {row['comparisons']} of {row['of']} comparisons have as many votes for one side "
        f"as for the other. The same items may have been read in two ways, in the batches {', '.join(row['batches'])}. "
        f"`dpo sources` shows how each was read; to take out the wrong one: "
        f"{_forget('batch', row['batches'][0], store)}"
        for row in sources
    ]


def _count(number: int, what: str) -> str:
    return f"{number:,} {what.removesuffix('s') if abs(number) == 1 else what}"


def _forget(kind: str, name: str, store: Path, *, undo: bool = False) -> str:
    """The command line, for a shell; a name with line separators is escaped, so that it survives a copy."""
    at = [] if store == STORE else ["--store", str(store)]
    return " ".join(map(_quoted, ["dpo", "forget", f"--{kind}", name, *(["--undo"] if undo else []), *at]))


def _quoted(part: str) -> str:
    if part.isprintable():
        return shlex.quote(part)
    return f"$'{''.join(map(_escaped, part))}'"


def _escaped(mark: str) -> str:
    if mark in "\\'":
        return f"\\{mark}"
    return mark if mark.isprintable() else "".join(f"\\x{byte:02x}" for byte in mark.encode())
