"""Every raw format that can be read, by name. A new one is a file here, a line here, and a sample in tests/formats."""

from dpo_data.formats import ab_table, hh_rlhf, kto, pandalm, ratings, sharegpt_dpo, trl
from dpo_data.formats.records import Reader

READERS: dict[str, Reader] = {
    "ab_table": Reader(ab_table.detect, ab_table.parse),
    "hh_rlhf": Reader(hh_rlhf.detect, hh_rlhf.parse),
    "kto": Reader(kto.detect, kto.parse),
    "pandalm": Reader(pandalm.detect, pandalm.parse),
    "ratings": Reader(ratings.detect, ratings.parse),
    "sharegpt_dpo": Reader(sharegpt_dpo.detect, sharegpt_dpo.parse),
    "trl": Reader(trl.detect, trl.parse),
}
