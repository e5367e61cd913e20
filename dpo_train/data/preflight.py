"""What happened to the pairs on their way to tokens: counts for a script, split by split, and sentences for a person.

A cut or dropped pair is no accident of one row: long answers stand in some slices and on one side more than on others,
so every loss is counted by side and by slice. A sound set has no sentences at all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dpo_train.data.axes import columns_of, label
from dpo_train.data.pairs import PairSet

Bools = npt.NDArray[np.bool_]
SIDES = ("chosen", "rejected")
SHOWN = 3  # ids of pairs in a sentence


def preflight(sets: Sequence[PairSet]) -> dict[str, Any]:
    """Plain numbers, split by split; `slices` holds those that lost something, with the pairs they had."""
    return {pairs.split: _of_split(pairs) for pairs in sets}


def _of_split(pairs: PairSet) -> dict[str, Any]:
    kept = np.isin(np.arange(len(pairs.reasons)), pairs.kept)
    told = {name: np.asarray(pairs.tokens.data.column(name).to_pylist()) for name in ("merged_boundary", *_names())}
    cut = {side: kept & (told[f"cut_{side}"] > 0) for side in SIDES}
    open_end = {side: kept & ~told[f"end_{side}"].astype(bool) for side in SIDES}
    merged = kept & told["merged_boundary"].astype(bool)
    return {
        "pairs": len(kept),
        "kept": len(pairs),
        "dropped": dict(sorted(Counter(reason for reason in pairs.reasons if reason).items())),
        "refused": _refused(pairs),
        "merged_boundaries": int(merged.sum()),
        "merged_example": pairs.pair_ids[int(np.searchsorted(pairs.kept, np.flatnonzero(merged)[0]))]
        if merged.any()
        else None,
        "cut": {side: int(cut[side].sum()) for side in SIDES},
        "tokens_cut": {side: int(told[f"cut_{side}"][kept].sum()) for side in SIDES},
        "without_end_of_turn": {side: int(open_end[side].sum()) for side in SIDES},
        "longest_row": int(pairs.lengths.max(initial=0)),
        "mean_row": round(float(pairs.lengths.mean()), 1) if len(pairs) else None,
        "slices": _by_slice(pairs, {"dropped": ~kept, **{f"cut_{side}": cut[side] for side in SIDES}}),
    }


def _refused(pairs: PairSet) -> list[dict[str, Any]]:
    """What the chat template says of the pairs it refuses: its words, how many pairs, and the first ids."""
    words = np.asarray(pairs.tokens.data.column("refusal").to_pylist(), dtype=object)
    found = []
    for text, count in Counter(word for word in words if word).most_common():
        rows = np.flatnonzero(words == text)[:SHOWN]
        ids = pairs.rows.data.column("pair_id").take(pa.array(rows)).to_pylist()
        found.append({"words": text, "pairs": count, "ids": ids})
    return found


def _names() -> list[str]:
    return [f"{what}_{side}" for what in ("cut", "end") for side in SIDES]


def _by_slice(pairs: PairSet, lost: Mapping[str, Bools]) -> list[dict[str, Any]]:
    """Slices of all pairs of the shards in which something was lost, those that lost most first."""
    if not any(rows.any() for rows in lost.values()):
        return []
    found = []
    for axis, seen in label(columns_of(pairs.rows.data.table)).items():
        for code, level in enumerate(seen.levels):
            here = seen.codes == code
            counts = {name: int((rows & here).sum()) for name, rows in lost.items()}
            if any(counts.values()):
                found.append({"axis": axis, "slice": level, "pairs": int(here.sum()), **counts})
    return sorted(found, key=lambda row: -max(row[name] for name in lost) / row["pairs"])


def sentences(checked: Mapping[str, Mapping[str, Any]], max_length: int) -> list[str]:
    """What of this a person should know before the first step."""
    said = []
    for split, one in checked.items():
        if one["dropped"]:
            said.append(
                f"{split}: {one['pairs'] - one['kept']} of {one['pairs']} pairs are left out "
                f"({_listed(one['dropped'])}){_most(one['slices'], ('dropped',))}. max_length is {max_length}."
            )
        said += [
            f"{split}: the chat template refuses {row['pairs']} pairs ({', '.join(row['ids'])}"
            f"{', …' if row['pairs'] > len(row['ids']) else ''}): {row['words']}"
            for row in one["refused"]
        ]
        if any(one["cut"].values()):
            said.append(
                f"{split}: {_listed(one['cut'])} responses are cut at max_length {max_length} and lose "
                f"{_listed(one['tokens_cut'])} tokens{_most(one['slices'], ('cut_chosen', 'cut_rejected'))}: cuts take "
                "more from the longer side. truncation_mode drop leaves such pairs out."
            )
        elif any(one["without_end_of_turn"].values()):
            said.append(
                f"{split}: {_listed(one['without_end_of_turn'])} of {one['kept']} responses do not end with the "
                "tokenizer's end-of-turn token, so the policy is not taught to stop there: look at the chat template."
            )
        if one["merged_boundaries"]:
            said.append(
                f"{split}: in {one['merged_boundaries']} of {one['kept']} pairs a token spans the border of prompt and "
                f"response (pair {one['merged_example']}): the response is scored from the first token that differs."
            )
    return said


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in counts.items() if count)


def _most(slices: Sequence[Mapping[str, Any]], names: Sequence[str]) -> str:
    """The slice of ten pairs or more that lost the largest share, where there is one."""
    worst = max(
        (row for row in slices if row["pairs"] >= 10),
        key=lambda row: max(row[name] for name in names) / row["pairs"],
        default=None,
    )
    if worst is None or not any(worst[name] for name in names):
        return ""
    count = max(worst[name] for name in names)
    return f", most in {worst['axis']} = {worst['slice']} ({count} of {worst['pairs']})"
