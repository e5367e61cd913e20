"""The same version from every executor, and from a Ray cluster of two nodes one of which is killed while it measures.

    python tests/bench/bench_executors.py [comparisons]       (default 20000)

Two Ray nodes are started on the loopback with two CPUs each; the second one is killed with SIGKILL two seconds into
the measuring. Every line ends with the version's id and a hash of all its files: they must agree. The embedding
shards of some short texts are compared bit by bit too. Needs Ray: pip install 'dpo-pipeline[ray]'.
"""

import os
import platform
import signal
import subprocess
import sys
import tempfile
import threading
import time
from functools import partial
from hashlib import sha256
from pathlib import Path

import polars as pl

from dpo_data.config import CurationConfig
from dpo_data.ingest.append import append_batch
from dpo_data.publish import publish_version

sys.path.insert(0, str(Path(__file__).resolve().parent))

PORT = 26379
KINDS = ("inline", "processes", "ray")


def publish(raw: Path, store: Path, settings: dict[str, object], strike: int | None = None) -> tuple[str, str, float]:
    """Version id, a hash of its files, seconds until it was measured. `strike`: a process to kill meanwhile."""
    from dpo_data import curate
    from dpo_data.executor import ExecutorSettings, start

    config = CurationConfig(tokenizer=None, embedding_model=None)
    begun = time.perf_counter()
    with start(ExecutorSettings.model_validate(settings), store) as workers:
        append_batch(store, [raw], "generated", "pandalm", mapper=workers.map)
        if strike is not None:
            threading.Timer(2, os.kill, (strike, signal.SIGKILL)).start()
        ledger = curate.measure(store, config, workers)
    seconds = time.perf_counter() - begun
    version = publish_version(store, curate.decide(ledger, config), config)
    hashes = "".join(entry["sha256"] for entry in version.manifest["files"])
    return version.id, sha256(hashes.encode()).hexdigest()[:16], seconds


def embed(folder: Path, settings: dict[str, object]) -> str:
    """A hash of the vectors of some short texts, in three shards."""
    from dpo_data.executor import ExecutorSettings, start
    from dpo_data.ids import text_hash
    from dpo_data.text import embeddings

    texts = [f"The number {number} and the number {number * number}." for number in range(360)]
    parts = [texts[first : first + 120] for first in range(0, len(texts), 120)]
    shards = [embeddings.Shard(folder, [text_hash(text) for text in part], part) for part in parts]
    with start(ExecutorSettings.model_validate(settings), folder) as workers:
        paths = list(workers.map_on_actors(partial(embeddings.Encoder, embeddings.DEFAULT), shards))
    return sha256(b"".join(pl.read_parquet(path)["vector"].to_numpy().tobytes() for path in paths)).hexdigest()[:16]


def node(folder: Path, *arguments: str) -> subprocess.Popen[bytes]:
    """A Ray node that stays in the foreground, so that it is ours to end."""
    log = (folder / f"node{len(arguments)}.log").open("wb")
    command = [str(Path(sys.executable).with_name("ray")), "start", "--num-cpus=2", "--block", *arguments]
    started = subprocess.Popen(command, stdout=log, stderr=log)
    time.sleep(12)
    return started


def raylet_of(started: subprocess.Popen[bytes]) -> int:
    """The process id of the raylet that this node started."""
    for status in Path("/proc").glob("[0-9]*/stat"):
        name, _, rest = status.read_text().rpartition(")")
        if "(raylet" in name and int(rest.split()[1]) == started.pid:
            return int(status.parent.name)
    raise SystemExit(f"no raylet below process {started.pid}: did the node start?")


def main() -> None:
    from bench_curation import generate

    count = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
    folder = Path(tempfile.mkdtemp(prefix="bench-executors-"))
    raw = folder / "raw.jsonl"
    generate(raw, count)
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    print(f"{time.strftime('%Y-%m-%d')}, {machine}, {count:,} comparisons, load {os.getloadavg()[0]:.1f}")
    found = set()

    def told(name: str, settings: dict[str, object], strike: int | None = None) -> None:
        version, files, seconds = publish(raw, folder / name.replace(" ", "-"), settings, strike)
        found.add((version, files))
        print(f"{name:<28} read and measured in {seconds:6.1f} s   version {version}   files {files}", flush=True)

    told("inline", {"kind": "inline"})
    told("processes 2", {"kind": "processes", "workers": 2})
    told("processes 3", {"kind": "processes", "workers": 3})
    told("ray", {"kind": "ray", "workers": 2})
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    head = node(folder, "--head", f"--port={PORT}", "--node-ip-address=127.0.0.1", "--include-dashboard=false")
    second = node(folder, f"--address=127.0.0.1:{PORT}", "--node-ip-address=127.0.0.2")
    try:
        cluster: dict[str, object] = {"kind": "ray", "address": f"127.0.0.1:{PORT}"}
        told("two nodes", cluster)
        told("two nodes, one is killed", cluster, raylet_of(second))
    finally:
        for started in (second, head):
            started.terminate()
            started.wait()
    print("all versions agree, id and bytes" if len(found) == 1 else f"DIFFERENT VERSIONS: {found}")
    vectors = {embed(folder / f"vectors-{kind}", {"kind": kind, "workers": 2}) for kind in KINDS}
    print("all vectors agree to the bit" if len(vectors) == 1 else f"DIFFERENT VECTORS: {vectors}")
    raise SystemExit(len(found) + len(vectors) - 2)


if __name__ == "__main__":
    main()
