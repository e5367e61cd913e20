"""The page a run leaves behind: says the right thing first, asks for nothing, runs nothing that the data brought."""

import html
import json
import re
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from helpers import synthetic_run
from helpers.hostile_run import hostile_run

from dpo_train.config import TrainError
from dpo_train.report import page as report
from dpo_train.report.sql import where
from dpo_train.report.table import of_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "planted"
    synthetic_run.write_run(folder, *synthetic_run.tables(prompts=120, splits=("validation", "train_probe")))
    report.write(folder)
    return folder


def test_the_first_heading_names_the_slice_to_fix_and_how_sure_that_is(run: Path) -> None:
    page = html.unescape((run / "report.html").read_text(encoding="utf-8"))
    first = re.search(r"<h1>(.*?)</h1>", page, re.S)
    assert first and first[1] == "Fix first: source = flipped. Its margins fell."
    assert "Its margins fell: −" in page and "60 pairs of 30 prompts" in page
    assert "A gap this large by chance: p < .001" in page and "Held-out margins grew" in page


def test_the_numbers_are_also_in_json_and_parquet_and_are_the_same(run: Path) -> None:
    numbers = json.loads((run / "report.json").read_text(encoding="utf-8"))
    assert numbers["slices"] == pq.read_table(run / "slices.parquet").to_pylist()
    assert numbers["axes"][0]["axis"] == "source" and numbers["config"]["beta"] == synthetic_run.BETA
    assert numbers["worst"][0]["margin"] == min(pair["margin"] for pair in numbers["worst"])


def test_the_page_asks_nothing_of_the_network_and_allows_only_its_own_style_and_script(run: Path) -> None:
    page = (run / "report.html").read_text(encoding="utf-8")
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)
    assert policy and policy[1].startswith("default-src 'none'")
    assert "unsafe" not in policy[1] and "http" not in policy[1].replace("http-equiv", "")
    assert set(re.findall(r"src\s*=\s*\"([^,\"]*)", page)) == {"data:image/svg+xml;base64"}
    assert not re.search(r'href\s*=\s*(?!"#rows-\d+")', page)  # to itself alone
    assert " style=" not in page and "@import" not in page
    assert len(page) < 1_500_000


def test_every_slice_leads_to_its_rows_and_they_to_their_story(run: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    inside = store / "runs" / "planted"
    shutil.copytree(run, inside)
    (store / "versions" / "v1").mkdir(parents=True)
    (store / "versions" / "v1" / "audit.html").write_text("<title>audit</title>")
    (inside / "config.json").write_text(json.dumps({"beta": synthetic_run.BETA, "version": "v1"}))
    page = html.unescape(report.write(inside).read_text(encoding="utf-8"))
    anchors = set(re.findall(r'href="#(rows-\d+)"', page))
    assert anchors and anchors == set(re.findall(r'id="(rows-\d+)"', page))
    assert """dpo sql "select pair_id, split, weight from pairs where source = 'flipped'" --version v1""" in page
    lowest = json.loads((inside / "report.json").read_text(encoding="utf-8"))["worst"][0]["pair_id"]
    assert "source = flipped<br><code>dpo sql" in page and f"dpo explain {lowest}</code>" in page
    assert 'href="../../versions/v1/audit.html#slices"' in page
    assert (inside / "../../versions/v1/audit.html").is_file()


def test_the_same_run_gives_the_same_page(run: Path, tmp_path: Path) -> None:
    again = tmp_path / "planted"
    shutil.copytree(run, again)
    assert report.write(again).read_bytes() == (run / "report.html").read_bytes()


def test_hostile_text_is_escaped_everywhere(tmp_path: Path) -> None:
    page = report.write(hostile_run(tmp_path / "hostile")).read_text(encoding="utf-8")
    assert page.count("<script") == page.count("</script>") <= 2
    for attack in ("<img src=x", 'onload="', '<a href="javascript', "<script>document"):
        assert attack not in page
    assert page.count("<style>") == 1 and "&lt;script&gt;" in page


@pytest.mark.parametrize("split", ["validation", "train_probe", "test"])
def test_a_run_with_only_one_split_has_a_report_of_it(tmp_path: Path, split: str) -> None:
    run = synthetic_run.write_run(tmp_path / "run", *synthetic_run.tables(prompts=60, splits=(split,)))
    page = html.unescape(report.write(run).read_text(encoding="utf-8"))
    assert "Fix first: source = flipped" in page and ("Seen on training pairs only" in page) == (split == "train_probe")
    assert of_run(run).splitlines()[2].split()[0] == {"validation": "Held-out", "train_probe": "Training-probe"}.get(
        split, "Test"
    )


def test_too_few_pairs_no_metadata_or_one_evaluation_are_said_and_not_guessed_at(tmp_path: Path) -> None:
    pair_log, pairs = synthetic_run.tables(prompts=40)
    one_pair = synthetic_run.tables(prompts=1)
    cases = {
        "one pair": (*one_pair, "Held-out pairs: 1 of 1 prompts, under 10: too small to say anything"),
        "bare": (pair_log, pairs.select(["pair_id"]), "No slice stands out among the 5 compared"),
        "start only": (pair_log.filter(pc.equal(pair_log["step"], 0)), pairs, "evaluated only once, at step 0"),
        "nothing": (pair_log.slice(0, 0), pairs, "This run evaluated no pairs"),
    }
    for name, (log, metadata, words) in cases.items():
        run = synthetic_run.write_run(tmp_path / name, log, metadata)
        assert words in html.unescape(report.write(run).read_text(encoding="utf-8"))
        assert words in of_run(run)


def test_chosen_answers_that_grow_less_likely_are_named_though_the_margins_grew(tmp_path: Path) -> None:
    pair_log, pairs = synthetic_run.tables(prompts=120)
    turned = set(pairs.filter(pc.equal(pairs["source"], "flipped"))["pair_id"].to_pylist())
    rows = pair_log.to_pylist()
    for row in rows:  # all margins grow by 1; in the slice because chosen falls by 1 and rejected by 2
        done, down = row["step"] / 10, -10.0 if row["pair_id"] in turned else 5.0
        noise = row["tokens_chosen"] % 5
        row["logp_chosen"] = -50.0 + done * (down + noise)
        row["logp_rejected"] = -40.0 + done * (down + noise - 10.0)
        row["margin"] = done * 1.0
    run = synthetic_run.write_run(tmp_path / "run", pa.Table.from_pylist(rows, schema=pair_log.schema), pairs)
    report.write(run)
    words = json.loads((run / "report.json").read_text(encoding="utf-8"))["headline"]
    assert words["fix"].startswith("Look first at source = flipped. Its chosen answers grew less likely")
    assert "Wrong labels look like this" in words["points"][0] and words["next"] == "--confirm source=flipped"


def test_every_slice_of_the_pairs_has_a_query_that_finds_its_rows() -> None:
    assert where("source", "it's") == "source = 'it''s'"
    assert where("confidence", "0.7–0.9") == "confidence >= 0.7 and confidence < 0.9"
    assert where("language", "not measured") == "language is null"
    assert where("all", "all") is None and where("length gap", "within 10") is None
    assert where('odd "name"', "x") == '"odd ""name""" = \'x\''


def test_a_folder_without_a_log_is_an_error_that_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(TrainError, match=r"pair_log\.parquet is missing"):
        report.write(tmp_path)
