"""One YAML file says where the comparisons come from, how they are judged, and how the policy is trained.

Paths in it are relative to the file. `--set a.b=value` changes one setting without editing the file; a name
that does not exist is an error that lists the names that do. The surprise: `training.max_length` is the curation's
limit too (`curation.sizes.max_length`), so that pairs that a cut would make equal are found at the length that trains.
"""

import glob
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import Field, ValidationError

from dpo_data.curate import CurationConfig
from dpo_data.executor import ExecutorSettings
from dpo_data.schema import DataError
from dpo_data.settings import Settings
from dpo_data.store.gates import PublishGates
from dpo_data.store.shards import ShardSettings

if TYPE_CHECKING:
    from dpo_train.config import TrainConfig


class Source(Settings):
    """One place that raw comparisons come from: a file, a folder or a glob."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    path: str
    format: str | None = None  # None: detected from the first records
    annotator_kind: str | None = None  # human or model, where the records do not say
    columns: dict[str, Any] | None = None  # for a plain table: which column is what


class Recipe(Settings):
    """Sources, curation and training of one project."""

    sources: tuple[Source, ...] = ()
    curation: CurationConfig = CurationConfig()
    shards: ShardSettings = ShardSettings()
    gates: PublishGates = PublishGates()
    executor: ExecutorSettings = ExecutorSettings()
    # Kept raw here: parsing it imports torch, which a refresh has no use for. `train_config` parses it.
    training: dict[str, Any] = Field(default_factory=dict)


def load(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe, apply `a.b=value` overrides, and resolve its source paths.

    Raises `DataError` for a missing file, broken YAML, an unknown setting or a value out of range.
    """
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except FileNotFoundError:
        raise DataError(
            f"{path}: no such recipe. Expected a YAML file with sources, curation and training; "
            "data/sample/recipe.yaml is one to start from."
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError, IsADirectoryError) as error:
        raise DataError(
            f"{path}: not readable as YAML ({error}). Expected a mapping with sources, curation, training."
        ) from None
    if not isinstance(raw, dict):
        raise DataError(
            f"{path}: found {type(raw).__name__} at the top, expected a mapping with sources, curation, training."
        )
    for override in overrides:
        _apply(raw, override)
    try:
        recipe = Recipe.model_validate(_one_length(raw))
    except ValidationError as error:
        raise DataError(_explain(path, error)) from None
    sources = tuple(source.model_copy(update={"path": _resolve(path.parent, source.path)}) for source in recipe.sources)
    names = [source.name for source in sources]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise DataError(f"{path}: sources named twice: {', '.join(repeated)}. Give each its own name, or one a glob.")
    return recipe.model_copy(update={"sources": sources})


def _one_length(raw: dict[str, Any]) -> dict[str, Any]:
    """`training.max_length` as curation's limit too, unless the recipe sets curation's apart."""
    training, curation = raw.get("training") or {}, raw.get("curation") or {}
    sizes = curation.get("sizes") or {} if isinstance(curation, dict) else None
    if not isinstance(training, dict) or not isinstance(sizes, dict):
        return raw  # whatever it is, validation says so
    if "max_length" not in training or "max_length" in sizes:
        return raw
    return {**raw, "curation": {**curation, "sizes": {**sizes, "max_length": training["max_length"]}}}


def train_config(recipe: Recipe, where: str = "the recipe") -> "TrainConfig":
    """The training settings, parsed; raises `DataError` for an unknown name or a value out of range."""
    from dpo_train.config import TrainConfig

    try:
        return TrainConfig.model_validate(recipe.training)
    except ValidationError as error:
        raise DataError(_explain(f"{where}, training", error)) from None


def _resolve(folder: Path, path: str) -> str:
    if "://" in path or Path(path).is_absolute():
        return path
    plain = folder / path
    if not glob.has_magic(path) or plain.exists():
        return str(plain)
    return str(Path(glob.escape(str(folder)), path))  # brackets in the name of the project's folder are no pattern


def parse_overrides(overrides: Sequence[str]) -> dict[str, Any]:
    """Curation limits by dotted name, for a what-if: `agreement.min_agreement=0.7`, with or without `curation.`."""
    return {name.removeprefix("curation."): value for name, value in map(_parse, overrides)}


def _parse(override: str) -> tuple[str, Any]:
    name, equals, text = override.partition("=")
    if not equals or not name:
        raise DataError(f"--set {override}: expected name=value, such as curation.agreement.min_agreement=0.7.")
    try:
        return name, yaml.safe_load(text)
    except yaml.YAMLError:
        raise DataError(f"--set {override}: {text!r} is not a YAML value. Quote it.") from None


def _apply(raw: dict[str, Any], override: str) -> None:
    name, value = _parse(override)
    *parents, last = name.split(".")
    if parents and parents[0] not in Recipe.model_fields:
        raise DataError(f"--set {override}: names start with one of {', '.join(Recipe.model_fields)}.")
    target = raw
    for parent in parents:
        inner = target.setdefault(parent, {})
        if not isinstance(inner, dict):
            raise DataError(f"--set {override}: {parent} is not a group of settings, so {name} does not exist.")
        target = inner
    target[last] = value


def _explain(where: object, error: ValidationError) -> str:
    found = "; ".join(
        f"{'.'.join(str(part) for part in problem['loc'])}: {problem['msg']} (found {problem['input']!r})"
        for problem in error.errors()
    )
    return f"{where}: {found}. Known names and their defaults: `dpo settings`."
