"""Publishing is atomic, idempotent and byte-identical; a version opens as it was written."""

import errno
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from hashlib import sha256
from pathlib import Path

import polars as pl
import pytest
from helpers.digests import digests
from helpers.planted_version import Planted, config, ledger_of, many, plant_store

from dpo_data import curate, schema
from dpo_data.ingest.append import append_batch
from dpo_data.publish import publish_version
from dpo_data.release import fingerprint
from dpo_data.release.checks import PublishGates
from dpo_data.release.shards import ShardSettings
from dpo_data.schema import SLICE_COLUMNS, DataError
from dpo_data.store import versions
from dpo_data.votes.agreement import AgreementLimits
from dpo_train.config import TrainError
from flows.output import failure

CONFIG = config()


def test_a_published_version_holds_ledger_pairs_and_a_manifest_that_lists_them(tmp_path: Path) -> None:
    rows = many(40)
    rows[3].reasons = ("tie",)
    store = plant_store(tmp_path, rows)
    version = publish_version(store, ledger_of(rows), CONFIG)
    assert version.created and version.id == version.path.name and len(version.id) == 16
    assert version.ledger().collect().height == 40
    pairs = version.pairs().collect()
    assert pairs.height == 39 and rows[3].id not in pairs["pair_id"]
    assert pairs.columns == [*schema.PAIRS, *SLICE_COLUMNS, "category"]
    listed = {entry["path"]: entry["rows"] for entry in version.manifest["files"]}
    assert listed["ledger.parquet"] == 40
    assert sum(n for path, n in listed.items() if path.startswith("pairs/")) == 39
    told = {"stats.json", "examples.parquet", "audit.html", "README.md"}
    assert set(digests(version.path)) - set(listed) == {"manifest.json", *told}
    assert versions.verify(version) == []
    assert versions.open_version(store).id == version.id == versions.open_version(store, version.id[:6]).id


def test_the_chosen_text_is_the_preferred_one_whatever_its_side(tmp_path: Path) -> None:
    rows = many(30)
    assert {row.preferred for row in rows} == {"a", "b"}
    version = publish_version(plant_store(tmp_path, rows), ledger_of(rows), CONFIG)
    by_id = {row["pair_id"]: row for row in version.pairs().collect().to_dicts()}
    for row in rows:
        pair = by_id[row.id]
        assert pair["prompt"] == [{"role": "user", "content": row.prompt}]
        assert pair["chosen"] == [{"role": "assistant", "content": row.better.strip()}]
        assert pair["rejected"] == [{"role": "assistant", "content": row.worse.strip()}]
        assert (pair["votes_chosen"], pair["votes_rejected"]) == (3, 0)
        assert pair["length_gap_chars"] == len(row.better.strip()) - len(row.worse.strip())
        assert pair["length_gap_tokens"] is None


PUBLISHED = {"2": "c039299e5ff31d92"}  # hash of published pairs by `fingerprint.RESULTS`


def test_published_pairs_change_only_with_the_version_of_results(tmp_path: Path) -> None:
    """If this fails on purpose, raise `fingerprint.RESULTS` and put the new hash here under it."""
    rows = many(40)
    version = publish_version(plant_store(tmp_path, rows), ledger_of(rows), CONFIG)
    text = json.dumps(version.pairs().sort("pair_id").collect().to_dicts(), sort_keys=True, default=str)
    assert sha256(text.encode()).hexdigest()[:16] == PUBLISHED[fingerprint.RESULTS]
    assert version.manifest["code"]["dpo_data"] == fingerprint.RESULTS


def test_publishing_the_same_again_rewrites_nothing(tmp_path: Path) -> None:
    rows = many(20)
    store = plant_store(tmp_path, rows)
    first = publish_version(store, ledger_of(rows), CONFIG)
    before = {path: path.stat().st_mtime_ns for path in first.path.rglob("*")}
    again = publish_version(store, ledger_of(rows).sample(fraction=1, shuffle=True, seed=7), CONFIG)
    assert again.id == first.id and not again.created
    assert {path: path.stat().st_mtime_ns for path in first.path.rglob("*")} == before


def test_two_stores_with_the_same_input_publish_the_same_bytes(tmp_path: Path) -> None:
    rows = many(60)
    cut = ShardSettings(rows_per_shard=16, row_group_rows=5)
    one = publish_version(plant_store(tmp_path / "one", rows), ledger_of(rows), CONFIG, shard_settings=cut)
    shuffled = ledger_of(rows[::-1])
    two = publish_version(plant_store(tmp_path / "two", rows[::-1]), shuffled, CONFIG, shard_settings=cut)
    assert one.id == two.id
    assert digests(one.path) == digests(two.path)


def test_another_limit_or_another_decision_is_another_version(tmp_path: Path) -> None:
    rows = many(20)
    store = plant_store(tmp_path, rows)
    ids = {publish_version(store, ledger_of(rows), CONFIG).id}
    ids.add(publish_version(store, ledger_of(rows), config(agreement=AgreementLimits(min_agreement=0.7))).id)
    cut = ShardSettings(rows_per_shard=7)
    ids.add(publish_version(store, ledger_of(rows), CONFIG, shard_settings=cut).id)
    rows[0].reasons = ("tie",)
    ids.add(publish_version(store, ledger_of(rows), CONFIG).id)
    assert len(ids) == 4
    assert len(versions.list_versions(store)) == 4


def test_shards_are_cut_sorted_and_named_by_their_number(tmp_path: Path) -> None:
    rows = many(50, split="train")
    cut = ShardSettings(rows_per_shard=20, row_group_rows=8)
    version = publish_version(plant_store(tmp_path, rows), ledger_of(rows), CONFIG, shard_settings=cut)
    names = sorted(path.name for path in (version.path / "pairs").iterdir())
    assert names == [f"train-{i:05d}-of-00003.parquet" for i in range(3)]
    assert [pl.read_parquet(version.path / "pairs" / name).height for name in names] == [20, 20, 10]
    ids = version.pairs("train").collect()["pair_id"].to_list()
    assert ids == sorted(row.id for row in rows)


def test_the_pointer_moves_keeps_the_champion_and_can_be_set_back(tmp_path: Path) -> None:
    rows = many(20)
    store = plant_store(tmp_path, rows)
    first = publish_version(store, ledger_of(rows), CONFIG)
    (store / "current.json").write_text(f'{{"champion": "run-1", "version": "{first.id}"}}')
    second = publish_version(store, ledger_of(rows), config(agreement=AgreementLimits(min_agreement=0.9)))
    assert versions.read_pointer(store) == {"champion": "run-1", "version": second.id}
    versions.make_current(store, first.id)
    assert versions.read_pointer(store) == {"champion": "run-1", "version": first.id}


def test_nothing_kept_or_nothing_to_train_on_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    rows = many(10, reasons=("tie",))
    store = plant_store(tmp_path, rows)
    with pytest.raises(DataError, match=r"(?s)0 of 10 comparisons are kept\..*10 x tie"):
        publish_version(store, ledger_of(rows), CONFIG)
    held_out = [Planted("p", "yes", "no", split="test")]
    with pytest.raises(DataError, match="none of the 1 kept pairs is in the train split"):
        publish_version(store, ledger_of(held_out), CONFIG)
    assert versions.list_versions(store) == [] and versions.current(store) is None


def test_the_gate_refuses_a_fall_beyond_its_share_and_lets_a_smaller_one_pass(tmp_path: Path) -> None:
    rows = many(20)
    store = plant_store(tmp_path, rows)
    first = publish_version(store, ledger_of(rows), CONFIG)
    for row in rows[:3]:
        row.reasons = ("tie",)
    with pytest.raises(DataError, match=r"fall from 20 .current version. to 17"):
        publish_version(store, ledger_of(rows), CONFIG, publish_gates=PublishGates(max_drop=0.1))
    assert versions.open_version(store).id == first.id
    assert publish_version(store, ledger_of(rows), CONFIG, publish_gates=PublishGates(max_drop=0.15)).created


def test_a_kept_row_without_text_is_named(tmp_path: Path) -> None:
    rows = many(5)
    store = plant_store(tmp_path, rows[1:])
    with pytest.raises(DataError, match=rows[0].id):
        publish_version(store, ledger_of(rows), CONFIG)
    assert versions.list_versions(store) == []


def test_an_unknown_or_ambiguous_version_lists_what_is_there(tmp_path: Path) -> None:
    rows = many(5)
    store = plant_store(tmp_path, rows)
    with pytest.raises(DataError, match="no current version"):
        versions.open_version(store)
    version = publish_version(store, ledger_of(rows), CONFIG)
    with pytest.raises(DataError, match=version.id):
        versions.open_version(store, "nothing")


def test_a_changed_file_is_found_by_its_hash(tmp_path: Path) -> None:
    rows = many(20)
    version = publish_version(plant_store(tmp_path, rows), ledger_of(rows), CONFIG)
    shard = next(iter((version.path / "pairs").glob("train-*")))
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(bytes(data))
    assert versions.verify(version) == [f"pairs/{shard.name}"]


KILLED = """
    import os, signal, sys
    from pathlib import Path
    sys.path.insert(0, {tests!r})
    from helpers.planted_version import config, ledger_of, many
    from dpo_data import publish
    from dpo_data.votes.agreement import AgreementLimits
    target, count = {target!r}, {count}
    module = next(place for place in (publish.shards, publish.pointer, publish) if hasattr(place, target))
    original = getattr(module, target)
    calls = 0
    def dies(*args, **kwargs):
        global calls
        calls += 1
        if calls == count:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*args, **kwargs)
    setattr(module, target, dies)
    publish.publish_version(Path({store!r}), ledger_of(many(40)), config(agreement=AgreementLimits(min_agreement=0.9)))
"""


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What the version that the killed process was writing looks like where nobody dies."""
    store = plant_store(tmp_path_factory.mktemp("undisturbed"), many(40))
    publish_version(store, ledger_of(many(40)), CONFIG)
    same = config(agreement=AgreementLimits(min_agreement=0.9))
    return digests(publish_version(store, ledger_of(many(40)), same).path)


@pytest.mark.parametrize(("target", "count"), [("pair_columns", 1), ("stats", 1), ("_sealed", 4), ("move", 1)])
def test_kill_9_leaves_no_half_version_and_the_next_publish_sweeps(
    tmp_path: Path, target: str, count: int, undisturbed: dict[str, str]
) -> None:
    rows = many(40)
    store = plant_store(tmp_path, rows)
    old = publish_version(store, ledger_of(rows), CONFIG)
    before = digests(old.path)
    script = textwrap.dedent(KILLED).format(
        tests=str(Path(__file__).parents[1]), target=target, count=count, store=str(store)
    )
    died = subprocess.run([sys.executable, "-c", script], env={**os.environ}, check=False)
    assert died.returncode == -signal.SIGKILL
    assert versions.open_version(store).id == old.id and digests(old.path) == before
    assert all(versions.verify(versions.open_version(store, path.name)) == [] for path in versions.list_versions(store))
    new = publish_version(store, ledger_of(rows), config(agreement=AgreementLimits(min_agreement=0.9)))
    assert new.created == (target != "move") and new.became_current
    assert versions.open_version(store).id == new.id
    assert digests(new.path) == undisturbed
    assert not list((store / "versions").glob(".publishing-*"))


HOLDER = """
    import sys, time
    from pathlib import Path
    from dpo_data.store import lock
    with lock.hold(Path(sys.argv[1])):
        print("held", flush=True)
        time.sleep(600)
"""


def test_a_second_publisher_waits_until_the_first_one_is_killed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = many(5)
    store = plant_store(tmp_path, rows)
    holder = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(HOLDER), str(store)], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    waiting = threading.Thread(target=publish_version, args=(store, ledger_of(rows), CONFIG))
    waiting.start()
    while not caplog.messages:
        time.sleep(0.01)
    assert caplog.messages == [f"{store}: waiting for process {holder.pid}, which works on this store."]
    assert versions.current(store) is None, "a reader does not wait"
    holder.kill()
    holder.communicate()
    waiting.join()
    assert versions.open_version(store).created is False and len(versions.list_versions(store)) == 1


def test_a_publish_removes_links_and_files_in_the_place_of_leftovers(tmp_path: Path) -> None:
    rows = many(5)
    store = plant_store(tmp_path / "store", rows)
    (tmp_path / "target").mkdir()
    (tmp_path / "target" / "precious").touch()
    (store / "versions").mkdir()
    (store / "versions" / ".publishing-link").symlink_to(tmp_path / "target")
    (store / "versions" / ".publishing-dangling").symlink_to(tmp_path / "nowhere")
    (store / "versions" / ".publishing-file").touch()
    assert publish_version(store, ledger_of(rows), CONFIG).created
    assert not list((store / "versions").glob(".publishing-*"))
    assert (tmp_path / "target" / "precious").exists()


@pytest.mark.parametrize("content", ["[]", "null", '"x"', "{", "", "\x00", "[" * 3000])
def test_the_advice_for_a_broken_pointer_restores_it(tmp_path: Path, content: str) -> None:
    rows = many(5)
    store = plant_store(tmp_path, rows)
    first = publish_version(store, ledger_of(rows), CONFIG)
    pointer = store / "current.json"
    whole = pointer.read_text()
    pointer.write_text(content)
    with pytest.raises(DataError, match=r"current\.json.*Remove it and run `dpo refresh`") as refused:
        versions.open_version(store)
    assert len(str(refused.value)) < 600
    pointer.unlink()
    again = publish_version(store, ledger_of(rows), CONFIG)
    assert (again.id, again.created, again.became_current) == (first.id, False, True)
    assert pointer.read_text() == whole


def test_a_version_whose_manifest_was_removed_is_published_again(tmp_path: Path) -> None:
    rows = many(5)
    store = plant_store(tmp_path, rows)
    first = publish_version(store, ledger_of(rows), CONFIG)
    before = digests(first.path)
    (first.path / "manifest.json").unlink()
    with pytest.raises(DataError, match=r"remove current\.json and refresh"):
        publish_version(store, ledger_of(rows), CONFIG)
    (store / "current.json").unlink()
    assert publish_version(store, ledger_of(rows), CONFIG).created
    assert digests(first.path) == before


def test_the_card_tells_counts_reasons_and_hashes_and_no_cell_breaks_out(tmp_path: Path) -> None:
    rows = [*many(19), Planted("p", "yes", "no", source="evil | <b>", reasons=("tie",))]
    version = publish_version(plant_store(tmp_path, rows), ledger_of(rows), CONFIG)
    text = (version.path / "README.md").read_text()
    assert text.startswith("---\nconfigs:") and "19 pairs (prompt, chosen, rejected) kept of 20 comparisons" in text
    assert "| tie | 1 | 1 |" in text and "evil \\| \\<b\\>" in text
    for entry in version.manifest["files"]:
        assert entry["sha256"] in text


def test_the_same_id_has_the_same_sealed_bytes_however_the_raw_files_were_cut_or_ordered(tmp_path: Path) -> None:
    records = [
        {
            "prompt": f"Question {i}?",
            "response_a": f"Good {i}",
            "response_b": f"Bad {i}",
            "winner": "a",
            "annotator": who,
        }
        for i in range(30)
        for who in ("ann", "bob", "cyd")
    ]
    settings = config(slices=())
    found = []
    for name, cuts in (("whole", [records]), ("cut", [records[45:], records[:45]])):
        store = tmp_path / name
        for i, part in enumerate(cuts):
            file = tmp_path / f"{name}-{i}.jsonl"
            file.write_text("".join(json.dumps(record) + "\n" for record in part))
            append_batch(store, [file], "planted")
        ledger = curate.decide(curate.measure(store, settings), settings)
        found.append(publish_version(store, ledger, settings))
    whole, cut = found
    assert whole.id == cut.id
    assert whole.manifest["files"] == cut.manifest["files"]
    cards = [(version.path / "README.md").read_text() for version in found]
    assert "whole-0.jsonl" in cards[0] and "whole-0.jsonl" not in cards[1]  # so it cannot be sealed


def test_a_full_disk_leaves_what_was_published_and_takes_no_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """File systems that reserve room late say so when a file is flushed; here the disk lasts for nine flushes."""
    rows = many(20)
    store = plant_store(tmp_path, rows)
    first = publish_version(store, ledger_of(rows), CONFIG)
    before, left, flush = digests(store), [9], os.fsync

    def flush_while_there_is_room(handle: int) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        flush(handle)

    other = config(agreement=AgreementLimits(min_agreement=0.7))
    with monkeypatch.context() as full:
        full.setattr(os, "fsync", flush_while_there_is_room)
        with pytest.raises(OSError, match="No space left"):
            publish_version(store, ledger_of(rows), other)
    assert digests(store) == before
    assert versions.open_version(store).id == first.id


def test_a_full_disk_is_told_as_such_whoever_meets_it() -> None:
    with pytest.raises(OSError) as plain, open("/dev/full", "w") as file:  # noqa: PTH123
        file.write("x")
        file.flush()
    with pytest.raises(pl.exceptions.ComputeError) as parquet:
        pl.DataFrame({"x": [1]}).write_parquet("/dev/full")
    for met in (plain, parquet):
        first, what_to_do = failure(met.value)
        assert first.startswith("no space is left on the disk") and "dpo versions --prune" in what_to_do
    assert failure(DataError("bad \x1b[2J")) == ["bad \ufffd[2J"]
    assert failure(TrainError("too long")) == ["too long"]
    assert failure(ValueError("need at least one array"))[0].startswith("a fault of the program")
    assert failure(KeyError("x"))[0].startswith("a fault of the program")
