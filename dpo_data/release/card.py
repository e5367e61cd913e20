"""The dataset card of a version: README.md as the Hub reads it, from the manifest and stats.json alone.

It says what the set is, what was dropped and why, what is not known, and how to load it. It holds no text of the
data. It has no date, because the same input has to give the same bytes.
"""

import json
from collections.abc import Iterable, Sequence
from typing import Any

from dpo_data.schema import SPLITS

_LOAD = """```python
from datasets import load_dataset

{name} = load_dataset("parquet", data_files={files})
```"""


def dataset_card(manifest: dict[str, Any], numbers: dict[str, Any]) -> str:
    """Markdown with the Hub's YAML head; `numbers` are those of stats.json."""
    files, counts = manifest["files"], numbers["counts"]
    kept, total = counts["kept"], counts["comparisons"]
    parts = [
        _head(files),
        f"# Preference pairs, version {manifest['version']}",
        f"{kept:,} pairs (prompt, chosen, rejected) kept of {total:,} comparisons, from {counts['votes']:,} votes of "
        f"{counts['annotators']:,} named annotators on {counts['prompts']:,} prompts. Every comparison, kept or "
        "dropped, stands in `ledger.parquet` with all its measures and reasons.",
        *_responses(numbers),
        "## Load",
        *_load(files),
        "## Splits",
        _table(
            ["split", "pairs", "prompt groups"],
            ([s["split"], s["kept"], s["prompt_groups"]] for s in numbers["splits"]),
        ),
        f"Prompt groups with kept pairs in two splits: {numbers['prompts']['groups_in_two_splits']}.",
        "## Sources",
        _table(
            ["source", "comparisons", "kept", "votes", "agreement of votes (pairs of votes)", "alpha (comparisons)"],
            (_source_row(source) for source in numbers["sources"]),
        ),
        "## Dropped",
        _table(
            ["reason", "rows", "no other reason"],
            ([reason["reason"], reason["rows"], reason["sole_rows"]] for reason in numbers["reasons"]),
        ),
        "A comparison may have several reasons, so the rows add up to more than was dropped.",
        "## Length",
        _length(numbers["length_bias"]),
        "## Limits of this set",
        _limits(numbers),
        "## Made from",
        _inputs(manifest),
        "## Files",
        _table(
            ["file", "rows", "bytes", "sha256"], ([f["path"], f["rows"], f["bytes"], f"`{f['sha256']}`"] for f in files)
        ),
    ]
    return "\n\n".join(parts) + "\n"


def _load(files: Sequence[dict[str, Any]]) -> list[str]:
    """How to load the pairs, or the unpaired responses where the version has no pairs."""
    if pairs := _data_files(files, "pairs"):
        how = "TRL's `DPOTrainer` takes the columns `prompt`, `chosen` and `rejected` as they are."
        return [_LOAD.format(name="pairs", files=json.dumps(pairs)), how]
    how = (
        "This version has no pairs, only single responses with a label: TRL's `KTOTrainer` takes the columns "
        "`prompt`, `completion` and `label` as they are."
    )
    return [_LOAD.format(name="responses", files=json.dumps(_data_files(files, "unpaired"))), how]


def _responses(numbers: dict[str, Any]) -> list[str]:
    """How many lone thumbs are in `unpaired/`; nothing where there are none."""
    used = numbers["lone_thumbs"].get("used", 0)
    return [f"{used:,} further responses have a thumb of their own and are in `unpaired/`, not in a pair."] * bool(used)


def _head(files: Sequence[dict[str, Any]]) -> str:
    lines = ["---", "configs:"]
    for config in ("pairs", "unpaired"):
        data = _data_files(files, config)
        if data:
            lines += [f"- config_name: {config}", "  data_files:"]
            for split, pattern in data.items():
                lines += [f"  - split: {split}", f"    path: {pattern}"]
    return "\n".join([*lines, "tags: [preference, dpo]", "---"])


def _data_files(files: Sequence[dict[str, Any]], folder: str) -> dict[str, str]:
    """A glob per split that has files."""
    paths = [entry["path"] for entry in files]
    return {
        split: f"{folder}/{split}-*.parquet"
        for split in SPLITS
        if any(path.startswith(f"{folder}/{split}-") for path in paths)
    }


def _source_row(source: dict[str, Any]) -> list[Any]:
    return [
        source["source"],
        source["comparisons"],
        source["kept"],
        source["votes"],
        _with_n(source["agreement"], source["vote_pairs"]),
        _with_n(source["alpha"], source["alpha_comparisons"]),
    ]


def _with_n(value: float | None, n: int) -> str:
    return "not measured" if value is None else f"{value:.3f} ({n:,})"


def _length(bias: dict[str, list[dict[str, Any]]]) -> str:
    lines = []
    for name, label in (("before", "Before curation"), ("after", "As published")):
        row = bias[name][0]
        if row["p_longer"] is None:
            lines.append(f"- {label}: no pair with two lengths.")
            continue
        lines.append(
            f"- {label}: the chosen response is the longer one in {row['p_longer']:.1%} "
            f"(95 %: {row['p_low']:.1%} to {row['p_high']:.1%}) of {row['unequal']:,} pairs of unequal length; "
            f"length alone tells chosen from rejected with AUC {row['auc']:.3f} (.5: not at all; {row['n']:,} pairs, "
            f"in {row['unit']})."
        )
    return "\n".join(lines)


def _limits(numbers: dict[str, Any]) -> str:
    counts, torn = numbers["counts"], numbers["contradictions"]
    people = numbers["annotators"]
    lines = [
        f"- {torn['of']:,} of {counts['comparisons']:,} comparisons have two votes or more; for the others agreement "
        "is unknown, not perfect.",
        f"- {torn['rows']:,} of those {torn['of']:,} have votes for both sides; {torn['quarantined']:,} are dropped as "
        "contradictory.",
        f"- {people['flagged']:,} of {people['named']:,} named annotators (counted per source) are flagged as random "
        "or inverted; anonymous votes cannot be judged.",
        f"- {counts['rejected_records']:,} raw records or parts of records could not be read.",
        "- `confidence` is the probability that `chosen` is better plus half of `p_equal`, the probability that there "
        "is no real difference: both under a model of the annotators, no measured accuracy.",
    ]
    return "\n".join(lines)


def _inputs(manifest: dict[str, Any]) -> str:
    rows = [[batch.get("source"), f"`{batch.get('digest')}`", _files_of(batch)] for batch in manifest["batches"]]
    lines = [
        _table(["source", "digest of the batch", "files"], rows),
        f"Inputs `{manifest['inputs']}`, decisions `{manifest['decisions']}`, dpo_data {manifest['code']['dpo_data']}.",
    ]
    models = ", ".join(f"{name} `{fingerprint}`" for name, fingerprint in manifest["models"].items())
    if models:
        lines.append(f"Models behind the measures: {models}.")
    lines.append("Every limit is in `manifest.json` under `config`.")
    return "\n\n".join(lines)


def _files_of(batch: dict[str, Any]) -> str:
    return ", ".join(str(file.get("name")) for file in batch.get("files", []))


def _table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A Markdown table whose cells cannot break out of it."""
    body = [[_cell(value) for value in row] for row in rows]
    if not body:
        return "None."
    lines = [columns, ["---"] * len(columns), *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: Any) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    text = "" if value is None else " ".join(str(value).split())
    for mark in "\\|<>[]":
        text = text.replace(mark, f"\\{mark}")
    return text
