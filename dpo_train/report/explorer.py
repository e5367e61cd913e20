"""The pairs that a reader of the report looks at: those with the lowest margins, and those the explorer re-scores.

Texts are data and may be anything; they are cut here and escaped where the page is made.
"""

from typing import Any

import numpy as np

from dpo_train.data.axes import Axis
from dpo_train.slices.margin_change import Movement

WORST = 12  # pairs shown with their text
MOST_EXPLORED = 300  # pairs of the explorer
MOST_CHARACTERS = 1200  # of a text on the page; the shards hold the whole


def _text(value: Any) -> str:
    """A text of the data as it stands, cut; message lists as their contents under their roles."""
    if isinstance(value, list):
        value = "\n".join(f"{message.get('role', '')}: {message.get('content', '')}" for message in value)
    words = str(value or "")
    return words if len(words) <= MOST_CHARACTERS else words[:MOST_CHARACTERS] + " …"


def worst(moved: Movement) -> list[dict[str, Any]]:
    """The pairs with the lowest margins, with their texts."""
    order = np.lexsort((moved.pair_ids.astype(str), moved.final))[:WORST]
    return [
        {
            "pair_id": str(moved.pair_ids[i]),
            "margin": float(moved.final[i]),
            "movement": float(moved.margin[i]),
            "source": str(moved.columns["source"][i]) if "source" in moved.columns else "",
            **{
                name: _text(moved.columns[name][i])
                for name in ("prompt", "chosen", "rejected")
                if name in moved.columns
            },
        }
        for i in order
    ]


def explorable(moved: Movement, axes: dict[str, Axis]) -> dict[str, Any]:
    """What the page's sliders re-score: log-ratios of both sides in nats, the length gap, slices and texts by pair.

    At most `MOST_EXPLORED` pairs, spread evenly over the margins, so that the worst and the best are among them.
    """
    order = np.lexsort((moved.pair_ids.astype(str), moved.final))
    order = order[np.unique(np.linspace(0, len(order) - 1, min(MOST_EXPLORED, len(order))).round().astype(int))]
    names = [("p", "prompt"), ("ct", "chosen"), ("rt", "rejected")]
    pairs = [
        {
            "id": str(moved.pair_ids[i]),
            "c": float(moved.chosen[i] / moved.beta),
            "r": float(moved.rejected[i] / moved.beta),
            "g": float(moved.gap[i]),
            "s": {axis: found.levels[found.codes[i]] for axis, found in axes.items()},
            **{short: _text(moved.columns[name][i] if name in moved.columns else "") for short, name in names},
        }
        for i in order
    ]
    return {"beta": moved.beta, "axes": list(axes), "pairs": pairs}
