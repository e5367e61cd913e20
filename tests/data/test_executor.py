"""Inline, processes and Ray: the same results, the same bytes of a version, also after a worker was killed."""

import importlib.util
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path

import polars as pl
import pytest
from helpers.digests import digests
from helpers.sample_store import SAMPLE

from dpo_data import curate
from dpo_data.config import CurationConfig
from dpo_data.executor import Executor, ExecutorSettings, Inline, Processes, start
from dpo_data.ingest.append import append_batch
from dpo_data.publish import publish_version
from dpo_data.release import shards
from dpo_data.schema import COMPARISONS, MEASURES, DataError
from dpo_data.store import versions
from dpo_data.text import blocks, features

CONFIG = CurationConfig(tokenizer=None, embedding_model=None, slices=("category",))
RAY = pytest.param(
    "ray",
    marks=[
        pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed"),
        pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
    ],
)
KINDS = ["inline", "processes", RAY]


@pytest.fixture(scope="module", params=KINDS)
def workers(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Executor]:
    """One executor a kind for all tests, as a refresh has one for all its stages: Ray takes seconds to start."""
    folder = tmp_path_factory.mktemp("workers")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("PYTHONPATH", str(Path(__file__).parent))  # so that the workers find this module
        with start(ExecutorSettings(kind=request.param, workers=2), folder / "store") as found:
            yield found


def published(store: Path, files: list[Path], workers: Executor) -> versions.Version:
    append_batch(store, files, "judged", mapper=workers.map)
    for folder in (store / "batches").glob("[0-9]*"):
        features.measure_batch(folder, workers, block=60)  # several blocks of a small set
    return publish_version(store, curate.decide(curate.measure(store, CONFIG, workers), CONFIG), CONFIG)


def cut(folder: Path, count: int, seed: int = 0) -> list[Path]:
    """The sample's judged votes, shuffled and dealt to some files."""
    lines = (SAMPLE / "judged.jsonl").read_bytes().splitlines(keepends=True)
    random.Random(seed).shuffle(lines)
    paths = [folder / f"votes-{index}.jsonl" for index in range(count)]
    for index, path in enumerate(paths):
        path.write_bytes(b"".join(lines[index::count]))
    return paths


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> versions.Version:
    folder = tmp_path_factory.mktemp("inline")
    return published(folder / "store", cut(folder, 3), Inline())


@pytest.mark.parametrize("workers", KINDS[1:], indirect=True)
def test_a_version_has_the_same_id_and_bytes_on_every_executor(
    tmp_path: Path, workers: Executor, reference: versions.Version
) -> None:
    found = published(tmp_path / "store", cut(tmp_path, 3), workers)
    assert found.id == reference.id
    assert digests(found.path) == digests(reference.path)


def test_a_version_is_the_same_from_other_files_in_another_order(tmp_path: Path, reference: versions.Version) -> None:
    found = published(tmp_path / "store", cut(tmp_path, 1, seed=1), Inline())
    assert found.id == reference.id
    assert found.manifest["files"] == reference.manifest["files"]


def test_results_come_in_the_order_of_the_jobs_and_few_jobs_are_out_at_a_time(workers: Executor) -> None:
    taken = []

    def jobs() -> Iterator[int]:
        for number in range(40):
            taken.append(number)
            yield number

    results = workers.map(nap_and_double, jobs())
    assert next(results) == 0
    assert len(taken) <= 5
    assert list(results) == [2 * number for number in range(1, 40)]


def nap_and_double(number: int) -> int:
    time.sleep(0.02 if number % 5 == 0 else 0)  # so that later jobs end earlier
    return 2 * number


def test_what_goes_wrong_in_a_job_comes_out_as_it_is_and_holds_no_worker(workers: Executor, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^found 3, expected less$"):
        list(workers.map(refuse_three, range(5)))
    with pytest.raises(DataError, match=r"^no model$") as held:
        list(workers.map_on_actors(refuse_to_load, range(5)))
    assert list(workers.map_on_actors(partial(Loaded, tmp_path), range(2))) == [1, 2], held


def refuse_three(number: int) -> int:
    if number == 3:
        raise DataError("found 3, expected less")
    return number


def refuse_to_load() -> Callable[[int], int]:
    raise DataError("no model")


class Loaded:
    """Stands for a worker with a model: counts how often one was loaded, in files."""

    def __init__(self, folder: Path) -> None:
        (folder / f"{os.getpid()}-{time.time_ns()}").touch()

    def __call__(self, number: int) -> int:
        return number + 1


def test_an_actor_loads_once_a_worker_and_not_at_all_without_jobs(workers: Executor, tmp_path: Path) -> None:
    folder = tmp_path / "loaded"
    folder.mkdir()
    assert list(workers.map_on_actors(partial(Loaded, folder), [])) == []
    assert not list(folder.iterdir())
    assert list(workers.map_on_actors(partial(Loaded, folder), range(20))) == list(range(1, 21))
    assert 1 <= len(list(folder.iterdir())) <= 2


def comparisons(folder: Path) -> Path:
    """A batch of 100 comparisons; the path its measures go to."""
    folder.mkdir()
    prompt = [{"role": "user", "content": "Which of the two is longer?"}]
    rows = [(f"{row:032x}", prompt, f"This is answer {row}.", f"Answer {row}.", []) for row in range(100)]
    pl.DataFrame(rows, schema=COMPARISONS, orient="row").write_parquet(folder / "comparisons.parquet")
    return folder / "measures.parquet"


def measure_or_die(log: Path, rows: pl.DataFrame) -> pl.DataFrame:
    """Measure and leave a note of it, but kill this worker at row 50, once."""
    if f"{50:032x}" in rows["comparison_id"] and not (log / "dead").exists():
        (log / "dead").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    measured = features.measure(rows)
    (log / f"measured-{time.time_ns()}").touch()
    return measured


@pytest.mark.parametrize("workers", KINDS[1:], indirect=True)
def test_a_killed_worker_changes_nothing_in_the_table(workers: Executor, tmp_path: Path) -> None:
    expected, target, log = comparisons(tmp_path / "whole"), comparisons(tmp_path / "killed"), tmp_path / "log"
    log.mkdir()
    features.measure_batch(expected.parent, block=10)
    work = partial(measure_or_die, log)
    lost = 0  # measured, but its worker was stopped before the block's file had its name: at most the other worker's
    if isinstance(workers, Processes):
        with pytest.raises(DataError, match="worker processes was killed"):
            blocks.write(target, work, MEASURES, features.METHOD, workers, 10)
        made = len(list(target.parent.glob(".measures-*/*.parquet")))
        lost = len(list(log.glob("measured-*"))) - made
        assert 3 <= made < 10
        assert lost in (0, 1)
    assert blocks.write(target, work, MEASURES, features.METHOD, workers, 10) == 100
    assert (log / "dead").exists()
    assert len(list(log.glob("measured-*"))) == 10 + lost  # no block that was there was measured again
    assert target.read_bytes() == expected.read_bytes()
    assert not list(target.parent.glob(".measures-*"))


def test_a_cluster_that_does_not_answer_is_named(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    with pytest.raises(DataError, match=r"executor\.address '127\.0\.0\.1:1'"):
        start(ExecutorSettings(kind="ray", address="127.0.0.1:1"), tmp_path)


@pytest.mark.parametrize("cuts", [(500,), (1, 7, 333, 998)])
def test_a_shard_has_the_same_bytes_however_its_rows_were_chunked(cuts: tuple[int, ...], tmp_path: Path) -> None:
    luck = random.Random(5)
    texts = ["".join(luck.choices("abcdefghij ", k=3000)) for _ in range(1000)]  # 3 MB: past the writer's dictionary
    whole = pl.DataFrame({"text": texts})
    borders = [0, *cuts, len(whole)]
    chunked = pl.concat([whole[a:b] for a, b in pairwise(borders)], rechunk=False)
    assert chunked.n_chunks() == len(borders) - 1
    for name, frame in (("whole", whole), ("chunked", chunked)):
        shards.write_table(frame, tmp_path / f"{name}.parquet", shards.ShardSettings())
        writer = shards.ShardWriter(tmp_path / name, "train", len(frame), shards.ShardSettings())
        writer.add(frame)
        writer.close()
    shard = "train-00000-of-00001.parquet"
    assert (tmp_path / "whole.parquet").read_bytes() == (tmp_path / "chunked.parquet").read_bytes()
    assert (tmp_path / "whole" / shard).read_bytes() == (tmp_path / "chunked" / shard).read_bytes()
