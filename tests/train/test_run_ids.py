"""A run's identity: what the model holds, the settings that decide results, the code; not names, memory or the day."""

import json
import os
import re
import shutil
import subprocess
import sys
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import tiny

from dpo_train.config import TrainConfig, TrainError
from dpo_train.data.encoding import Encoder
from dpo_train.policy import contents
from dpo_train.run import RESULTS, settings_of
from dpo_train.train import train
from flows.train import run_id

settings = partial(
    tiny.settings, per_device_train_batch_size=4, max_steps=8, save_steps=1, eval_steps=4, token_budget=600
)
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("store")
    return tiny.model_folder(root / "model"), tiny.version(root)


def records(run: Path, kind: str = "train") -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [row for row in rows if row["kind"] == kind]


# what a run is not


LESS_MEMORY = [
    {"token_budget": 300},
    {"token_budget": None, "prefix_sharing": False},
    {"gradient_checkpointing": True},
    {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2},
    {"report_to": ["tensorboard"]},
    {"save_steps": 3, "save_total_limit": 1},
]


class OutOfMemory:
    """Lets some gradients be added and then raises what torch raises where memory ran out."""

    def __init__(self, after: int) -> None:
        self.left = after

    def __call__(self, *_: object) -> None:
        self.left -= 1
        if self.left < 0:
            raise torch.OutOfMemoryError("CUDA out of memory")


@pytest.fixture(scope="module")
def stopped(place: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, str]:
    """A run that never stopped, one that ran out of memory in its sixth step, and what it said."""
    model, version = place
    root = tmp_path_factory.mktemp("memory")
    train(settings(model), version, root / "straight")
    with pytest.raises(TrainError) as said:
        train(settings(model), version, root / "stopped", observe=OutOfMemory(after=5))
    assert len(records(root / "stopped")) == 5
    return root / "straight", root / "stopped", str(said.value)


@pytest.mark.parametrize("change", LESS_MEMORY, ids=lambda change: "-".join(change))
def test_a_run_resumes_with_less_memory_and_ends_as_it_would_have(
    place: tuple[Path, Path], stopped: tuple[Path, Path, str], tmp_path: Path, change: dict[str, Any]
) -> None:
    model, version = place
    straight, broken, _ = stopped
    run = Path(shutil.copytree(broken, tmp_path / "run"))
    config = settings(model, **change)
    assert run_id(config, "v") == run_id(settings(model), "v")
    train(config, version, run, resume=True)
    assert [row["step"] for row in records(run)] == list(range(1, 9))
    for row, expected in zip(records(run), records(straight), strict=True):
        assert row["loss"] == pytest.approx(expected["loss"], abs=2e-5)
    changed = json.loads((run / "config.json").read_text())
    assert {name: changed[name] for name in change} == change


def test_the_advice_given_where_memory_runs_out_can_be_followed(
    place: tuple[Path, Path], stopped: tuple[Path, Path, str], tmp_path: Path
) -> None:
    model, version = place
    _, broken, said = stopped
    advice = re.search(r"Set token_budget to (\d+).* or gradient_checkpointing to true", said)
    assert advice is not None and int(advice[1]) < 600
    run = Path(shutil.copytree(broken, tmp_path / "run"))
    summary = train(
        settings(model, token_budget=int(advice[1]), gradient_checkpointing=True), version, run, resume=True
    )
    assert summary.steps == 8


def test_under_dropout_another_cut_is_another_run_and_checkpointing_is_not(
    place: tuple[Path, Path], tmp_path: Path
) -> None:
    model, version = place
    dropping = partial(settings, model, lora_dropout=0.3)
    train(dropping(), version, tmp_path / "straight")
    with pytest.raises(TrainError):
        train(dropping(), version, tmp_path / "run", observe=OutOfMemory(after=5))
    for change in ({"token_budget": 300}, {"prefix_sharing": False}):
        assert run_id(dropping(**change), "v") != run_id(dropping(), "v")
        with pytest.raises(TrainError, match=f"{next(iter(change))}: checkpoint"):
            train(dropping(**change), version, tmp_path / "run", resume=True)
    assert run_id(dropping(gradient_checkpointing=True), "v") == run_id(dropping(), "v")
    train(dropping(gradient_checkpointing=True), version, tmp_path / "run", resume=True)
    for row, expected in zip(records(tmp_path / "run"), records(tmp_path / "straight"), strict=True):
        assert row["loss"] == pytest.approx(expected["loss"], abs=2e-5)


def test_every_other_setting_is_a_runs_own() -> None:
    ignored = TrainConfig().model_dump(mode="json").keys() - settings_of(TrainConfig().model_dump(mode="json")).keys()
    assert ignored == {
        *("model", "revision"),  # by content
        *("token_budget", "prefix_sharing", "gradient_checkpointing", "fsdp"),
        *("save_steps", "save_total_limit", "report_to"),
        *("per_device_train_batch_size", "gradient_accumulation_steps"),  # by their product
    }
    whole = settings_of(TrainConfig(per_device_train_batch_size=3, gradient_accumulation_steps=5).model_dump())
    assert whole["pairs_per_step"] == 15


# what a run is


def of(model: Path, store: Path | None = None) -> str:
    return run_id(tiny.settings(model), "v", store)


def test_a_model_that_changed_under_its_name_is_another_run(tmp_path: Path) -> None:
    model = tiny.model_folder(tmp_path / "model")
    ids = [of(model, tmp_path)]
    tiny.model_folder(model, seed=7)
    ids.append(of(model, tmp_path))
    (model / "chat_template.jinja").write_text(tiny.CHATML.replace("assistant\n{% endif", "assistant: {% endif"))
    ids.append(of(model, tmp_path))
    settings_file = model / "tokenizer_config.json"
    settings_file.write_text(settings_file.read_text().replace("<|im_end|>", "<|im_start|>"))
    ids.append(of(model, tmp_path))
    (model / "model.safetensors").rename(model / "model-00001-of-00001.safetensors")
    ids.append(of(model, tmp_path))
    assert len(set(ids)) == 5


def test_the_same_content_elsewhere_or_touched_is_the_same_run(tmp_path: Path) -> None:
    model = tiny.model_folder(tmp_path / "model")
    before = of(model, tmp_path)
    moved = Path(shutil.copytree(model, tmp_path / "moved"))
    (moved / "README.md").write_text("what a person wrote")
    (moved / "base.json").write_text("{}")
    os.utime(moved / "model.safetensors", (1, 1))
    assert of(moved, tmp_path) == of(moved) == before


def test_weights_changed_under_size_and_time_are_seen(tmp_path: Path) -> None:
    model = tiny.model_folder(tmp_path / "model")
    weights = model / "model.safetensors"
    os.utime(weights, (10**9, 10**9))
    before = of(model, tmp_path / "store")
    whole = bytearray(weights.read_bytes())
    whole[-3] ^= 1  # a bit of the last weight
    weights.write_bytes(whole)
    os.utime(weights, (10**9, 10**9))
    assert of(model, tmp_path / "store") != before


def test_a_store_hashes_a_model_file_once(tmp_path: Path) -> None:
    model = tiny.model_folder(tmp_path / "model")
    for path in model.iterdir():
        os.utime(path, (10**9, 10**9))
    of(model, tmp_path)
    remembered = list((tmp_path / "cache" / "contents").iterdir())
    assert len(remembered) == len(
        [path for path in model.iterdir() if path.suffix in (".json", ".jinja", ".safetensors")]
    )
    for path in remembered:
        path.write_text(json.dumps({**json.loads(path.read_text()), "hash": "0"}))
    assert of(model, tmp_path) != of(model)
    remembered[0].write_text("half")
    for path in remembered[1:]:
        path.unlink()
    assert of(model, tmp_path) == of(model)


HUB = """
import json, sys
from pathlib import Path
from dpo_train.config import TrainConfig, TrainError
from dpo_train.policy.load import resolve
from flows.train import run_id
for model in sys.argv[1:]:
    try:
        found = resolve(model, Path("cache"))[1]
        print(json.dumps([run_id(TrainConfig(model=model), "v"), found]))
    except TrainError as error:
        print(json.dumps([None, str(error)]))
"""


def hub(home: Path, *models: str) -> list[Any]:
    """Run id and base of Hub models as a process of their own sees them, from its Hub cache alone."""
    environment = {**os.environ, "HF_HOME": str(home), "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    environment.pop("HF_HUB_CACHE", None)
    done = subprocess.run(
        [sys.executable, "-c", HUB, *models], capture_output=True, text=True, cwd=home, env=environment, check=True
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_hub_model_is_its_commit_and_an_adapter_there_is_refused(tmp_path: Path) -> None:
    repository = tmp_path / "hub" / "models--org--small"
    (repository / "refs").mkdir(parents=True)
    seen = []
    for seed, commit in enumerate(("a" * 40, "b" * 40)):
        tiny.model_folder(repository / "snapshots" / commit, seed=seed)
        (repository / "refs" / "main").write_text(commit)
        [(identity, base)] = hub(tmp_path, "org/small")
        assert base == {"model": "org/small", "revision": commit}
        seen.append(identity)
    assert seen[0] != seen[1]
    adapter = tmp_path / "hub" / "models--org--adapter"
    (adapter / "refs").mkdir(parents=True)
    (adapter / "refs" / "main").write_text("c" * 40)
    (adapter / "snapshots" / ("c" * 40)).mkdir(parents=True)
    (adapter / "snapshots" / ("c" * 40) / "adapter_config.json").write_text('{"base_model_name_or_path": "org/small"}')
    refused, absent = hub(tmp_path, "org/adapter", "org/absent")
    assert refused[0] is None and "'org/adapter' is an adapter of 'org/small'" in refused[1]
    assert absent[0] is None and "model 'org/absent' could not be opened" in absent[1]


def test_a_gguf_file_is_known_by_its_content(tmp_path: Path) -> None:
    for name, content in (("one", b"GGUF 1"), ("same", b"GGUF 1"), ("other", b"GGUF 2")):
        (tmp_path / f"{name}.gguf").write_bytes(content)
    one, same, other = (contents.of_model(str(tmp_path / f"{name}.gguf")) for name in ("one", "same", "other"))
    assert one == same != other


# the day

TODAY = (
    "{%- if not date_string is defined %}{%- if strftime_now is defined %}"
    "{%- set date_string = strftime_now('%d %b %Y') %}{%- endif %}{%- endif %}"
    "Today: {{ date_string }}, a {{ strftime_now('%A') }}\n"
) + tiny.CHATML


def rendered(template: str, **day: Any) -> str:
    tokenizer = tiny.tokenizer(template)
    encoder = Encoder(tokenizer, 400, "drop", **day)
    [pair] = encoder.encode(*([row[name]] for row in [tiny.row(3)] for name in ("prompt", "chosen", "rejected")))
    assert pair.reason is None
    return str(tokenizer.decode(pair.pair.prompt))


def test_a_template_that_writes_the_date_writes_a_fixed_one() -> None:
    assert rendered(TODAY).startswith("Today: 26 Jul 2024, a Friday\n<|im_start|>user")
    assert rendered(TODAY, day=date(2025, 1, 5)).startswith("Today: 05 Jan 2025, a Sunday\n<|im_start|>user")
    assert rendered("\n{{ strftime_now('%-d.%-m.') }}" + tiny.CHATML) == "\n26.7." + rendered(tiny.CHATML)


def test_the_date_is_in_keys_and_ids_where_the_template_writes_it(tmp_path: Path) -> None:
    for template, differ in ((TODAY, True), (tiny.CHATML, False)):
        tokenizer = tiny.tokenizer(template)
        keys = {Encoder(tokenizer, 400, "drop", day=day).key for day in (date(2024, 7, 26), date(2025, 1, 5))}
        assert (len(keys) == 2) == differ
    model = tiny.model_folder(tmp_path / "model")
    tiny.tokenizer(TODAY).save_pretrained(model)
    version = tiny.version(tmp_path, 8, 2, 2)
    one = train(tiny.settings(model, max_steps=1), version, tmp_path / "one")
    other = train(tiny.settings(model, max_steps=1, template_date="2025-01-05"), version, tmp_path / "other")
    assert one.reference["weights"] == other.reference["weights"]
    assert one.reference["tokenizer_and_template"] != other.reference["tokenizer_and_template"]
    assert [note for note in one.notes if "today's date" in note and "2024-07-26" in note]
    assert json.loads((tmp_path / "other" / "config.json").read_text())["template_date"] == "2025-01-05"
    assert one.metrics["test"]["logps/chosen"] != other.metrics["test"]["logps/chosen"]


# the code

KINDS: dict[str, dict[str, Any]] = {
    "adapter": {"lora_dropout": 0.2, "gradient_accumulation_steps": 2, "token_budget": 700},
    "all weights": {"use_peft": False, "learning_rate": 1e-3, "weight_decay": 0.1, "loss_type": "ipo"},
    "single responses": {"loss_type": "kto", "lr_scheduler_type": "cosine", "lora_target_modules": "all-linear"},
}
# Losses of four steps and the last held-out margin, by `run.RESULTS`.
NUMBERS = {
    "1": {
        "adapter": [0.6931471805599, 0.6038394310450, 0.4531498448957, 0.4317661718920, 0.7795539059578],
        "all weights": [25.0, 22.5719291877369, 17.3620899417188, 14.1810460991165, 2.4736431255378],
        "single responses": [0.5, 0.4500245211098, 0.3576648407493, 0.4354814357744, 1.4722463370886],
    }
}


@pytest.mark.parametrize("kind", KINDS)
def test_numbers_change_only_with_the_version_of_results(tmp_path: Path, kind: str) -> None:
    """If this fails on purpose, raise `run.RESULTS` and put the new numbers here under it."""
    make = tiny.unpaired_version if kind == "single responses" else tiny.version
    model, version = tiny.model_folder(tmp_path / "model", dtype=torch.float64), make(tmp_path)
    config = tiny.settings(
        model, dtype="float64", max_steps=4, eval_steps=4, load_best_model_at_end=False, **KINDS[kind]
    )
    train(config, version, tmp_path / "run")
    numbers = [row["loss"] for row in records(tmp_path / "run")]
    numbers.append(records(tmp_path / "run", "eval")[-1]["rewards/margins"])
    assert numbers == pytest.approx(NUMBERS[RESULTS][kind], rel=1e-7)
