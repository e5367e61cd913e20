"""What the reviews say about the pipeline: how right the kept pairs are, and how often a drop was wrong.

Only random samples are counted, each as far as a reviewer read it without a gap, and only the first verdict on a
comparison, given before its story was seen. Intervals are Wilson's, clustered by comparison where several reviewers
read the same. A clear preference shows a false drop only where the reason was that there is none; a
pair left out as a duplicate, or to balance lengths, was left out on purpose.
"""

from collections import Counter, defaultdict
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from dpo_data.intervals import clustered, wilson
from dpo_data.review import queues, verdicts
from dpo_data.review.verdicts import PASSED, Verdict
from dpo_data.store.versions import Version

Row = dict[str, Any]
ON_PURPOSE = ("near_duplicate", "length_rebalanced", "over_prompt_cap", "contaminated", "response_too_long")
"""Reasons that say nothing against the preference itself."""


def findings(store: Path, version: Version, said: list[Verdict] | None = None) -> dict[str, Any]:
    """`kept`: the precision of what is kept; `reasons`: per reason the share with a clear preference; `reviewers`: who
    read how many and chose the first place how often; `agreement`: every two reviewers on the same comparisons;
    `elsewhere`: other versions with verdicts, whose findings are their own. `said` are all verdicts of the store,
    where the caller has them already."""
    said = verdicts.read(store) if said is None else said
    first = [verdict for verdict in said if not verdict.again]
    here = [verdict for verdict in first if verdict.version == version.id]
    elsewhere = {verdict.comparison_id for verdict in said if verdict.version != version.id}
    others = Counter(verdict.version for verdict in first if verdict.version != version.id)
    samples = [entry for entry in queues.standard(version, elsewhere) if queues.is_sample(entry.name)]
    rows = [_sample(entry, here) for entry in samples]
    return {
        "version": version.id,
        "elsewhere": [{"version": name, "verdicts": count} for name, count in sorted(others.items())],
        "kept": next((row for row in rows if row["queue"] == "kept"), None),
        "reasons": [row for row in rows if row["queue"] != "kept" and row["read"]],
        "reviewers": _reviewers(first),
        "agreement": _agreement(first),
    }


def _sample(entry: queues.Queue, here: list[Verdict]) -> Row:
    """Shares over a sample's verdicts that are votes; `read` counts comparisons, `verdicts` verdicts."""
    counted = [verdict for own in _by_reviewer(here).values() for verdict in _unbroken(entry.ids, own)]
    votes = [verdict for verdict in counted if verdict.choice not in PASSED]
    clear = [verdict.choice in ("a", "b") for verdict in votes]
    right = [verdict.choice == verdict.preferred for verdict in votes]
    hit = right if entry.name == "kept" else clear
    reason = entry.name.partition(":")[2]
    return {
        "queue": entry.name,
        "reason": reason or None,
        "on_purpose": reason in ON_PURPOSE,
        "read": len({verdict.comparison_id for verdict in counted}),
        "sample": len(entry.ids),
        "of": entry.of,
        "verdicts": len(votes),
        "passed": len(counted) - len(votes),
        "agree": sum(right),
        "contrary": sum(c and not r for c, r in zip(clear, right, strict=True)),
        "neither": len(votes) - sum(clear),
        **_share(hit, [verdict.comparison_id for verdict in votes]),
    }


def _by_reviewer(said: list[Verdict]) -> dict[str, dict[str, Verdict]]:
    """Reviewer -> comparison -> the first verdict."""
    found: dict[str, dict[str, Verdict]] = defaultdict(dict)
    for verdict in said:
        found[verdict.annotator].setdefault(verdict.comparison_id, verdict)
    return dict(sorted(found.items()))


def _unbroken(ids: tuple[str, ...], own: dict[str, Verdict]) -> list[Verdict]:
    """The verdicts up to the first row that the reviewer has not seen: what comes after was not met by chance."""
    found = []
    for name in ids:
        if name not in own:
            break
        found.append(own[name])
    return found


def _share(hit: list[bool], names: list[str]) -> Row:
    if len(set(names)) == len(names):
        return _wilson(sum(hit), len(hit))
    codes = np.unique(names, return_inverse=True)[1]
    low, high = clustered(np.array(hit), codes)
    return {"share": sum(hit) / len(hit), "low": low, "high": high}


def _reviewers(first: list[Verdict]) -> list[Row]:
    """How many verdicts each gave, and how often the response shown first was chosen among the decided."""
    table = []
    for name, own in _by_reviewer(first).items():
        decided = [verdict for verdict in own.values() if verdict.choice in ("a", "b")]
        chosen = sum(verdict.choice == verdict.shown_first for verdict in decided)
        table.append({"reviewer": name, "verdicts": len(own), "decided": len(decided), **_wilson(chosen, len(decided))})
    return table


def _agreement(first: list[Verdict]) -> list[Row]:
    """Every two reviewers on the comparisons both voted on: how often they said the same."""
    people = _by_reviewer([verdict for verdict in first if verdict.choice not in PASSED])
    table = []
    for one, other in combinations(people, 2):
        both = sorted(people[one].keys() & people[other].keys())
        same = sum(_like(people[one][name]) == _like(people[other][name]) for name in both)
        if both:
            table.append({"one": one, "other": other, "both": len(both), "same": same, **_wilson(same, len(both))})
    return table


def _like(verdict: Verdict) -> str:
    return "tie" if verdict.choice == "both_bad" else verdict.choice


def _wilson(hits: int, n: int) -> Row:
    if not n:
        return {"share": None, "low": None, "high": None}
    low, high = wilson(np.array([hits / n]), np.array([float(n)]))
    return {"share": hits / n, "low": float(low[0]), "high": float(high[0])}
