"""The SQL that finds a slice's rows, so that whoever reads the report can look at them (`dpo sql`).

Bins are told by their edges in `axes`; slices that the published pairs cannot tell (token gaps after truncation,
topics) have no query.
"""

import re
import shlex

from dpo_train.data.axes import AGREEMENT, BINS, NOT_AXES, UNKNOWN, VOTES
from dpo_train.slices.topics import TOPIC

_SHARE = "case when votes_chosen + votes_rejected >= 2 then votes_chosen / (votes_chosen + votes_rejected) end"


def in_shell(query: str) -> str:
    """The query as one word of a shell, in double quotes where it holds nothing that a shell would read in them."""
    return shlex.quote(query) if re.search(r'["$`\\!]', query) else f'"{query}"'


def where(axis: str, level: str) -> str | None:
    """A condition on the view `pairs`, or None where there is none for this slice."""
    if axis in ("all", "length gap", TOPIC) or axis in NOT_AXES:
        return None
    binned = {"agreement": (_SHARE, *AGREEMENT), "votes": ("votes_chosen + votes_rejected", *VOTES)} | {
        name: (name, *edges) for name, edges in BINS.items()
    }
    column = axis if re.fullmatch(r"[a-z_][a-z0-9_]*", axis) else f'"{axis.replace(chr(34), chr(34) * 2)}"'
    if axis not in binned:
        return f"{column} is null" if level == UNKNOWN else f"{column} = '{level.replace(chr(39), chr(39) * 2)}'"
    expression, edges, names = binned[axis]
    if level == UNKNOWN:
        return f"{expression} is null"
    if level not in names:
        return None
    place = names.index(level)
    low = [f"{expression} >= {edges[place - 1]:g}"] if place else []
    high = [f"{expression} < {edges[place]:g}"] if place < len(edges) else []
    return " and ".join(low + high)
