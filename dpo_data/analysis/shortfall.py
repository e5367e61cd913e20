"""Why a store has nothing to publish: records rejected per source, what dropped the rest, and what to change."""

import json
from typing import Any

import polars as pl

from dpo_data.analysis import thresholds
from dpo_data.analysis.stats import reject_counts
from dpo_data.config import CurationConfig
from dpo_data.formats.ab_table import unknown_winner
from dpo_data.store.atomic import read_json
from dpo_data.store.batches import MANIFEST, Batches
from dpo_data.text.escape import short, visible

_SOURCES = 20
_REASONS = 3
"""Reject reasons listed per source, the most frequent first."""
_VALUES = 20
_CUT = 200
"""Characters shown of a reject's reason."""
_SETTINGS = {
    "length_rebalanced": "length_bias.rebalance",
    "responses_too_similar": "similarity.responses",
    "response_too_long": "sizes",
    "preference_cycle": "cycles",
}
"""Settings behind reasons whose limits are not all numbers; `thresholds.of` lists the others."""


def explain(
    opened: Batches, ledger: pl.DataFrame, config: CurationConfig, thumbs: dict[str, int], unpaired: bool
) -> str:
    """The sentence and the tables of the error; `thumbs` are the fates of `unpaired.lone`."""
    rejects = opened.rejects().collect()
    rejected = reject_counts(rejects, most=None)
    lines = [f"Nothing to publish: 0 of {ledger.height} comparisons are kept.", *_sources(opened, rejected)]
    lines += _dropped(ledger, config) + _thumbs(thumbs, unpaired) + _winners(rejected)
    if rejected:
        lines.append('List the rejects: dpo sql "from rejects"')
    return "\n".join(lines)


def _sources(opened: Batches, rejected: list[dict[str, Any]]) -> list[str]:
    """Records read and rejected per source, each with its most frequent reasons and their first example."""
    totals: dict[str, list[int]] = {}
    for batch in opened.ids:
        manifest = read_json(opened.store / "batches" / batch / MANIFEST)
        counts = manifest.get("counts", {})
        total = totals.setdefault(str(manifest["source"]), [0, 0, 0])
        for place, name in enumerate(("records", "rejected", "faults")):
            total[place] += counts.get(name, 0)
    lines = []
    for source, (records, count, faults) in sorted(totals.items())[:_SOURCES]:
        own = [row for row in rejected if row["source"] == source]
        parts = f", {faults} unreadable parts in other records" if faults else ""
        lines.append(f"{source}: {records} records read, {count} rejected{parts}")
        lines += [
            f"  {row['records']:>6} x {_plain(row['reason'])} (first: {_plain(row['origins'][0])})"
            for row in own[:_REASONS]
        ]
        if len(own) > _REASONS:
            lines.append(f"  and {len(own) - _REASONS} other reasons")
    if len(totals) > _SOURCES:
        lines.append(f"and {len(totals) - _SOURCES} other sources")
    return lines


def _dropped(ledger: pl.DataFrame, config: CurationConfig) -> list[str]:
    """Reasons with their rows, and the settings that could be loosened; nothing without comparisons."""
    counted = (
        ledger["reasons"]
        .explode()
        .drop_nulls()
        .value_counts(sort=True, name="rows")
        .sort("rows", "reasons", descending=[True, False])
    )
    if counted.is_empty():
        return []
    settings = {
        row["reason"]: row["setting"].rpartition(".")[0] or row["setting"]
        for row in thresholds.of(config.model_dump(mode="json"))
    }
    lines = ["Comparisons were dropped for (one may have several reasons):"]
    for reason, rows in counted.iter_rows():
        setting = _SETTINGS.get(reason) or settings.get(reason)
        lines.append(f"  {rows:>6} x {reason}{f' (setting: curation.{setting})' if setting else ''}")
    return lines


def _thumbs(thumbs: dict[str, int], unpaired: bool) -> list[str]:
    """What became of thumbs; where shards.unpaired is off, they are why nothing is published."""
    if not thumbs.get("responses"):
        return []
    if thumbs["used"] and not unpaired:
        return [f"{thumbs['used']} responses with a thumb could be published: set shards.unpaired to true."]
    fates = ", ".join(f"{count} {name}" for name, count in thumbs.items() if name not in ("thumbs", "responses"))
    return [f"Thumbs on {thumbs['responses']} responses: {fates}."]


def _winners(rejected: list[dict[str, Any]]) -> list[str]:
    """The line of the recipe that gives unknown winners a meaning; which one each has, only the user knows."""
    lines = []
    for source in dict.fromkeys(row["source"] for row in rejected):
        found = [unknown_winner(row["reason"]) for row in rejected if row["source"] == source]
        values = [value for value in dict.fromkeys(found) if value is not None]
        if values:
            named = ", ".join(
                f"{json.dumps(value, ensure_ascii=False)}: first|second|tie" for value in values[:_VALUES]
            )
            lines += [
                f"State in the recipe what each winner means, under columns of source {source} (keep one word each):",
                f"  winner_values: {{{visible(named)}}}",
            ]
    return lines


def _plain(text: str) -> str:
    """A text of the data on one line, cut, with hidden characters visible."""
    return visible(short(text, _CUT))
