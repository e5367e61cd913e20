"""Decide a published ledger again under other limits and report what would change. Reads no text."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl
from pydantic import ValidationError

from dpo_data import curate
from dpo_data.analysis import targets
from dpo_data.analysis.diff import compare_ledgers, sample_changes
from dpo_data.config import CurationConfig
from dpo_data.measures import length_bias
from dpo_data.release.shards import KEPT
from dpo_data.schema import DataError
from dpo_data.store.versions import open_version

# Settings that act when texts and votes are measured: deciding again cannot show what they would change.
MEASURING = (
    *("slices", "tokenizer", "embedding_model", "agreement.reliability", "cycles.exact_responses"),
    *("duplicates.jaccard", "duplicates.part_jaccard", "prompts.jaccard", "prompts.cosine", "prompts.max_semantic"),
    *("contamination.benchmarks", "contamination.words"),
)


_OLDER = (
    "Version {version} was decided by an older release; refresh first: `dpo refresh` publishes a version that can be "
    "decided again."
)


def decide_again(store: Path, version: str, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Decide a published ledger again under other limits, given as dotted names of CurationConfig. Reads no text.

    The summary of `compare` with `version`, `overrides`, `length_bias` (as it would be) and `length_bias_before`,
    `targets` (the slices against them, as they would be), and `sample`, at most 20 changed rows a kind. Raises
    `DataError` for a name that does not exist, a value out of range, and a setting that acts on measuring.
    """
    opened = open_version(store, version)
    _check_release(opened.id, opened.manifest["config"])
    config = _overridden(opened.manifest["config"], overrides)
    before = opened.ledger().collect()
    try:
        after = curate.decide(before.drop(curate.DECIDED, strict=False), config)
    except pl.exceptions.ColumnNotFoundError as error:
        raise DataError(f"{_OLDER.format(version=opened.id)} (its ledger lacks a column: {error})") from None
    by = ("source", *(name for name in config.slices if name in after.columns))
    found = compare_ledgers(before, after, by)
    bias = length_bias.bias(after.filter(KEPT), by, weight="weight").to_dicts()
    return {
        "version": opened.id,
        "overrides": dict(overrides),
        **found.summary,
        "length_bias_before": opened.stats["length_bias"]["after"],
        "length_bias": bias,
        "targets": targets.against(after.with_columns(kept=KEPT), config.targets),
        "sample": sample_changes(found.rows),
    }


def _check_release(version: str, config: Mapping[str, Any]) -> None:
    """Raise `DataError` where this release cannot read the version's own settings: the user's are not to blame."""
    try:
        CurationConfig.model_validate(config)
    except ValidationError as error:
        names = ", ".join(".".join(map(str, problem["loc"])) for problem in error.errors())
        raise DataError(f"{_OLDER.format(version=version)} (settings that differ: {names})") from None


def _overridden(config: Mapping[str, Any], overrides: Mapping[str, Any]) -> CurationConfig:
    for name in overrides:
        if any(name == setting or name.startswith(f"{setting}.") for setting in MEASURING):
            raise DataError(
                f"{name} acts when texts and votes are measured, so deciding again cannot show its effect. "
                "Change it in the recipe and refresh: the old version stays."
            )
    try:
        return CurationConfig.model_validate(merged(config, overrides))
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, p['loc']))}: {p['msg']}" for p in error.errors())
        raise DataError(f"what-if: {problems}. Known names and their defaults: `dpo settings`.") from None


def merged(settings: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Nested settings with overrides, whose names are dotted (`agreement.min_agreement`)."""
    result = {key: merged(value, {}) if isinstance(value, Mapping) else value for key, value in settings.items()}
    for name, value in overrides.items():
        *parents, last = name.split(".")
        target = result
        for parent in parents:
            inner = target.get(parent)
            target[parent] = inner if isinstance(inner, dict) else {}
            target = target[parent]
        target[last] = value
    return result
