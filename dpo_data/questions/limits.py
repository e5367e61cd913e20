"""The numeric limits of a configuration as a table: which measure, which bound, which side stays, which reason.

For showing only: the audit and `explain` put a row's value beside its limit, and the decision itself is made by the
rules of each room. The surprise: a reason may need two limits to be broken at once (too similar: by cosine and by edit
ratio); each of the two then names the other under `unless`.
"""

from collections.abc import Mapping
from typing import Any

Table = list[dict[str, Any]]

# setting, measures it bounds, which side of the limit stays, reason
_LIMITS = (
    ("agreement.min_agreement", ("agreement",), "at_least", "low_agreement"),
    ("agreement.min_confidence", ("confidence",), "at_least", "low_confidence"),
    ("sizes.max_response_tokens", ("tokens_a", "tokens_b"), "at_most", "response_too_long"),
    ("similarity.alike.cosine", ("similarity",), "at_most", "responses_too_similar"),
    ("similarity.alike.edit_ratio", ("edit_ratio",), "at_least", "responses_too_similar"),
    ("similarity.min_prompt_cosine", ("similarity_prompt_a", "similarity_prompt_b"), "at_least", "response_off_topic"),
    ("duplicates.jaccard", ("duplicate_similarity",), "below", "near_duplicate"),
)


def of(config: Mapping[str, Any]) -> Table:
    """Rows of measure, limit, stays (at_least, at_most, below), reason, setting, unless; `config` as in a manifest.

    A limit that is switched off, or that this configuration does not have, has no row.
    """
    table = []
    for setting, measures, stays, reason in _LIMITS:
        bound = _value(config, setting)
        if bound is not None:
            table += [
                {"measure": measure, "limit": float(bound), "stays": stays, "reason": reason, "setting": setting}
                for measure in measures
            ]
    for row in table:
        partners = [
            {"measure": other["measure"], "limit": other["limit"], "stays": other["stays"]}
            for other in table
            if other["reason"] == row["reason"] and other["setting"] != row["setting"]
        ]
        row["unless"] = partners[0] if partners else None
    return table


def _value(config: Mapping[str, Any], setting: str) -> Any:
    found: Any = config
    for name in setting.split("."):
        if not isinstance(found, Mapping):
            return None
        found = found.get(name)
    return found
