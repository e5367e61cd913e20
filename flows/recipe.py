"""One YAML file says where the comparisons come from, how they are judged, and how the policy is trained.

Paths in it are relative to the file. `--set a.b=value` changes one setting without editing the file; a name
that does not exist is an error that lists the names that do. Note: `training.max_length` is the curation's
limit too (`curation.sizes.max_length`), so that pairs that a cut would make equal are found at the length that trains.
"""

import glob
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import Field, ValidationError

from dpo_data.config import CurationConfig
from dpo_data.executor import ExecutorSettings
from dpo_data.release.checks import PublishGates
from dpo_data.release.shards import ShardSettings
from dpo_data.schema import DataError
from dpo_data.settings import Settings

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

    from dpo_train.config import TrainConfig


_EXPECTED = "Expected a mapping with sources, curation, training."
_NODES = 100_000  # of a recipe with its aliases written out; large recipes have some hundreds
_SECRET = re.compile(r"(?:token|key|password|passwd|secret|credentials?|signature|auth)$")


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
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise DataError(
            f"{path}: no such recipe. Expected a YAML file with sources, curation and training; "
            "data/sample/recipe.yaml is one to start from."
        ) from None
    except (UnicodeDecodeError, OSError) as error:
        raise DataError(f"{path}: cannot be read as UTF-8 text ({error}). {_EXPECTED}") from None
    try:
        raw = _yaml(text) or {}
    except ValueError as error:
        raise DataError(f"{path}: not readable as YAML ({error}). {_EXPECTED}") from None
    if not isinstance(raw, dict):
        raise DataError(f"{path}: found {type(raw).__name__} at the top. {_EXPECTED}")
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
    return recipe.model_copy(update={"sources": sources, "training": _with_model_path(path.parent, recipe.training)})


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


def _with_model_path(folder: Path, training: dict[str, Any]) -> dict[str, Any]:
    """The training settings with an absolute model path, where `model` names a file or folder beside the recipe.

    Any other name is a packaged one, one of the Hub, or a path from the working directory.
    """
    model = training.get("model")
    beside = folder / model if isinstance(model, str) and model else None
    names = ("config.json", "adapter_config.json")
    if beside is None or not (beside.is_file() or any((beside / name).is_file() for name in names)):
        return training
    return {**training, "model": str(beside.absolute())}


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
        raise DataError(f"--set {name}: expected name=value, such as curation.agreement.min_agreement=0.7.")
    try:
        return name, _yaml(text)
    except ValueError as error:
        raise DataError(f"--set {name}: its value is not a YAML value ({error}). Quote it.") from None


def _apply(raw: dict[str, Any], override: str) -> None:
    name, value = _parse(override)
    *parents, last = name.split(".")
    if parents and parents[0] not in Recipe.model_fields:
        raise DataError(f"--set {name}: names start with one of {', '.join(Recipe.model_fields)}.")
    target = raw
    for parent in parents:
        inner = target.setdefault(parent, {})
        if not isinstance(inner, dict):
            raise DataError(f"--set {name}: {parent} is not a group of settings, so {name} does not exist.")
        target = inner
    target[last] = value


def _yaml(text: str) -> Any:
    """The value of a YAML text; raises `ValueError` in one sentence for every text that has none.

    Aliases are counted before they are followed: eight levels of them in 500 bytes are a value of 200 MB.
    """
    try:
        nodes = [node for node in [yaml.compose(text, yaml.SafeLoader)] if node is not None]
        count = 0
        while nodes:
            node, count = nodes.pop(), count + 1
            if count > _NODES:
                raise ValueError(f"more than {_NODES:,} values once its aliases are written out")
            if isinstance(node, yaml.MappingNode):
                nodes += [part for pair in node.value for part in pair]
            elif isinstance(node, yaml.SequenceNode):
                nodes += node.value
        return yaml.safe_load(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except yaml.MarkedYAMLError as error:  # not str(error): it quotes the line, which may hold a secret
        mark = error.problem_mark or error.context_mark
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ValueError(f"{error.problem or error.context}{where}") from None
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from None


def _explain(where: object, error: ValidationError) -> str:
    problems = "; ".join(
        f"{'.'.join(str(part) for part in problem['loc'])}: {problem['msg']} (found {_shown(problem)})"
        for problem in error.errors()
    )
    return f"{where}: {problems}. Known names and their defaults: `dpo settings`."


def _shown(problem: "ErrorDetails") -> str:
    """The value that a setting was given, without secrets, at most 200 characters."""
    if any(_is_secret(part) for part in problem["loc"]):
        return "a value that is not shown, since its name is that of a secret"
    shown = repr(_without_secrets(problem["input"]))
    return shown if len(shown) <= 200 else f"{shown[:199]}…"


def _without_secrets(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: "***" if _is_secret(name) else _without_secrets(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_without_secrets(inner) for inner in value]
    return value


def _is_secret(name: object) -> bool:
    """Whether a setting's name ends like that of a secret: hf_token, apiKey, secret_access_key, but not tokenizer."""
    return _SECRET.search(str(name).lower()) is not None
