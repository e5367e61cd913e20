"""Every raw format that can be read, by name. A new one is a file here, a line here, and a sample in tests/formats."""

from types import ModuleType

from dpo_data.formats import ab_table, hh_rlhf, kto, pandalm, ratings, sharegpt_dpo, trl

READERS: dict[str, ModuleType] = {
    "ab_table": ab_table,
    "hh_rlhf": hh_rlhf,
    "kto": kto,
    "pandalm": pandalm,
    "ratings": ratings,
    "sharegpt_dpo": sharegpt_dpo,
    "trl": trl,
}
