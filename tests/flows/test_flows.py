"""The flows and the command as their three users meet them: a schedule, a data scientist, a retrain."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from dpo_data.schema import DataError
from dpo_data.store import batches
from dpo_data.votes.agreement import AgreementLimits
from flows import tables
from flows.cli.text import refresh_lines
from flows.recipe import Recipe, load, parse_overrides
from flows.refresh import refresh

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = ROOT / "data" / "sample"


def recipe_file(folder: Path, *names: str, **curation: Any) -> Path:
    """A recipe over some files of the sample that needs neither model."""
    sources = [{"name": name.split(".")[0], "path": str(SAMPLE / name)} for name in names]
    text = {"sources": sources, "curation": {"tokenizer": None, "embedding_model": None, **curation}}
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(text), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def refreshed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Recipe, Path, Any]:
    folder = tmp_path_factory.mktemp("refresh")
    recipe = load(recipe_file(folder, "studio.csv", "chats.jsonl", "thumbs.jsonl"))
    return recipe, folder / "store", refresh(recipe, folder / "store")


def dpo(*args: str, **environment: str) -> subprocess.CompletedProcess[str]:
    settings = {**os.environ, "DPO_DEBUG": "", **environment}
    command = [sys.executable, "-m", "flows.cli.app", *args]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=settings)


def test_every_raw_record_of_a_refresh_is_accounted_for(refreshed: tuple[Recipe, Path, Any]) -> None:
    _, _, summary = refreshed
    assert [source["source"] for source in summary["ingested"]] == ["studio", "chats", "thumbs"]
    for source in summary["ingested"]:
        assert source["records"] == source["voted"] + source["thumbs"] + source["rejected"] > 0


def test_a_refresh_publishes_a_version_with_its_audit(refreshed: tuple[Recipe, Path, Any]) -> None:
    _, store, summary = refreshed
    assert summary["created"]
    assert json.loads((store / "current.json").read_text())["version"] == summary["version"]
    assert "Content-Security-Policy" in Path(summary["audit"]).read_text(encoding="utf-8")
    kept = summary["stats"]["counts"]["kept"]
    assert f"kept      {kept} of" in "\n".join(refresh_lines(dict(summary)))


def test_a_refresh_with_nothing_new_publishes_nothing_and_says_so(refreshed: tuple[Recipe, Path, Any]) -> None:
    recipe, store, first = refreshed
    again = refresh(recipe, store)
    assert not again["created"]
    assert again["version"] == first["version"]
    assert [source["batch"] for source in again["ingested"]] == [None, None, None]
    assert "(up to date)" in "\n".join(refresh_lines(dict(again)))


def test_a_refresh_runs_under_prefect_without_a_server_and_leaves_tables_of_counts(tmp_path: Path) -> None:
    recipe = recipe_file(tmp_path, "studio.csv")
    done = dpo("refresh", "--recipe", str(recipe), "--store", str(tmp_path / "store"), "--json")
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    database = sqlite3.connect(tmp_path / "store" / "prefect" / "prefect.db")
    states = database.execute("select state_type from flow_run where name is not null").fetchall()
    assert states == [("COMPLETED",)]
    tasks = {name for (name,) in database.execute("select name from task_run")}
    assert {"ingest studio", "measure texts", "curate and publish"} <= tasks
    stored = dict(database.execute("select key, data from artifact").fetchall())
    shown = {key: json.loads(json.loads(data)) for key, data in stored.items() if key != "audit"}
    assert shown.keys() == {"kept", "reasons", "length-bias", "splits", "annotators"}
    stats = summary["stats"]
    [row] = shown["kept"]
    assert row == {"source": "studio", **{name: stats["counts"][name] for name in ("comparisons", "kept", "votes")}}
    assert [row["rows"] for row in shown["reasons"]] == [row["rows"] for row in stats["reasons"]]
    assert shown["annotators"] == [{"named": 5, "flagged": 2}]
    assert Path(summary["audit"]).absolute().as_uri() in stored["audit"]
    # Counts and links only: no name of an annotator, no value of the data's own columns.
    everything = " ".join(stored.values())
    names = [row["annotator"] for row in stats["annotators"]["rows"]]
    assert len(names) == 5 and not any(name in everything for name in names)
    # And no text: neither of a prompt nor of a response, nor a value of the data's attributes.
    texts = batches.open_batches(tmp_path / "store").comparisons().collect().to_dicts()
    said = {message["content"] for row in texts for message in row["prompt"]}
    said |= {row[side] for row in texts for side in ("response_a", "response_b")}
    said |= {attribute["value"] for row in texts for attribute in row["attributes"]}
    long_enough = [text for text in said if len(text) > 3]  # shorter ones may be counts
    assert len(long_enough) > 100 and not any(text in everything for text in long_enough)


def test_the_tables_of_a_later_version_tell_what_changed_and_what_is_short(
    refreshed: tuple[Recipe, Path, Any], tmp_path: Path
) -> None:
    recipe, store, first = refreshed
    assert "changes" not in {table.key for table in tables.of(first["version"], first["stats"])}
    curation = recipe.curation.model_copy(
        update={"agreement": AgreementLimits(min_agreement=0.99), "targets": {"source": {"studio": 10_000}}}
    )
    second = refresh(recipe.model_copy(update={"curation": curation}), Path(shutil.copytree(store, tmp_path / "store")))
    found = {table.key: table.rows for table in tables.of(second["version"], second["stats"])}
    [change] = found["changes"]
    assert change["old"] == first["version"] and change["left"] > 0
    assert change["kept"] == change["kept_before"] + change["entered"] - change["left"]
    [target] = found["targets"]
    assert target["short"] == 10_000 - target["kept"] > 0


def test_the_schedule_refreshes_on_its_cron_and_trains_on_what_was_published(tmp_path: Path) -> None:
    program = (
        "from pathlib import Path\n"
        "from flows.environment import prepare\n"
        f"prepare(Path({str(tmp_path)!r}))\n"
        "from flows.schedules import deployments\n"
        f"scheduled, triggered = deployments(Path('recipe.yaml'), Path({str(tmp_path)!r}), '0 5 * * *')\n"
        "print(scheduled.schedules[0].schedule.cron, triggered.triggers[0].expect, "
        "triggered.triggers[0].parameters['version'])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "0 5 * * * {'dpo.version.published'} {{ event.payload.version }}"


# ---- the command ----


def test_json_is_one_object_on_stdout(refreshed: tuple[Recipe, Path, Any]) -> None:
    _, store, summary = refreshed
    done = dpo("audit", "--store", str(store), "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["version"] == summary["version"]


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        (["refresh", "--recipe", "nowhere.yaml", "--no-prefect"], 1, "no such recipe"),
        (["audit", "--store", "nowhere"], 1, "no current version"),
        (["inspect", "nowhere.jsonl"], 1, "no such file"),
        (["report", "nothing", "--store", "nowhere"], 1, "names 0 runs"),
        (["forget", "--store", "nowhere"], 2, "give exactly one of"),
        (["no-such-command"], 2, "No such command"),
    ],
)
def test_a_mistake_is_a_sentence_and_an_exit_code(args: list[str], code: int, says: str) -> None:
    done = dpo(*args)
    assert done.returncode == code
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_what_if_answers_from_the_ledger_and_publishes_nothing(refreshed: tuple[Recipe, Path, Any]) -> None:
    _, store, summary = refreshed
    done = dpo("decide", "--store", str(store), "--set", "agreement.min_agreement=0.99", "--json")
    changed = json.loads(done.stdout)
    assert changed["left"] > 0
    assert changed["kept"] == changed["kept_before"] + changed["entered"] - changed["left"]
    assert json.loads((store / "current.json").read_text())["version"] == summary["version"]


# ---- recipes ----


def test_a_setting_that_does_not_exist_is_named(tmp_path: Path) -> None:
    path = recipe_file(tmp_path, "studio.csv")
    with pytest.raises(DataError, match=r"min_agrement.*dpo settings"):
        load(path, ["curation.agreement.min_agrement=0.7"])
    with pytest.raises(DataError, match="names start with one of"):
        load(path, ["agreement.min_agreement=0.7"])


def test_one_setting_can_be_changed_without_touching_the_file(tmp_path: Path) -> None:
    path = recipe_file(tmp_path, "studio.csv")
    before = path.read_bytes()
    assert load(path, ["curation.agreement.min_agreement=0.8"]).curation.agreement.min_agreement == 0.8
    assert path.read_bytes() == before
    assert parse_overrides(["curation.agreement.min_agreement=0.8"]) == {"agreement.min_agreement": 0.8}


def test_a_source_named_twice_is_refused(tmp_path: Path) -> None:
    path = recipe_file(tmp_path, "studio.csv", "studio.csv")
    with pytest.raises(DataError, match="named twice: studio"):
        load(path)


def test_the_length_that_trains_is_the_length_that_is_curated_for_unless_set_apart(tmp_path: Path) -> None:
    path = recipe_file(tmp_path, "studio.csv")
    assert load(path).curation.sizes.max_length == 1024
    assert load(path, ["training.max_length=300"]).curation.sizes.max_length == 300
    both = ["training.max_length=300", "curation.sizes.max_length=500"]
    assert load(path, both).curation.sizes.max_length == 500
    assert (
        load(path, ["training.max_length=300", "curation.sizes.max_response_tokens=99"]).curation.sizes.max_length
        == 300
    )
