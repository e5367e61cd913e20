"""How long a person waits for an answer: audit, decide, diff, explain, sql, the review; seconds and peak memory.

    python tests/bench/bench_questions.py [STORE]

STORE is a store that has a version, such as `bench_curation.py 1000000 --keep FOLDER` leaves. Without it 20,000
comparisons are made up and published first. Nothing in the store is changed: the audit is written into a folder of its
own. "audit" is everything beyond measuring and deciding: votes to annotators, stats.json, examples, audit.html. The
page is then opened in headless Chromium, where there is one, and scrolled to its end.
"""

import os
import platform
import re
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import polars as pl

from dpo_data.analysis.what_if import decide_again
from dpo_data.config import CurationConfig
from dpo_data.publish import publish_version

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

BAR_AUDIT, BAR_PAGE = 60, 3  # seconds and MB at a million comparisons
_ROWS = 20_000


@contextmanager
def timed(what: str) -> Iterator[None]:
    """Print wall and processor seconds; on a busy machine the second says more."""
    wall, cpu = time.perf_counter(), time.process_time()
    yield
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    seconds = f"{time.perf_counter() - wall:7.2f} s, processors {time.process_time() - cpu:7.2f} s"
    print(f"  {what:<38}{seconds}, peak so far {peak:.2f} GB", flush=True)


def write_audit(store: Path, folder: Path) -> None:
    """The audit of the current version once more, as publishing writes it."""
    from dpo_data import curate
    from dpo_data.analysis import thresholds
    from dpo_data.analysis.stats import example_ids, stats
    from dpo_data.audit import page
    from dpo_data.release import shards
    from dpo_data.store import atomic, batches, versions
    from dpo_data.votes.agreement import collapse
    from dpo_data.votes.annotators import annotators

    version = versions.open_version(store)
    config = CurationConfig.model_validate(version.manifest["config"])
    opened = batches.open_batches(store)
    ledger = curate.decide(version.ledger().collect().drop(curate.DECIDED, strict=False), config)
    with timed("audit"):
        votes = opened.votes().collect()
        collapsed = collapse(votes)
        people = annotators(votes, collapsed=collapsed)
        more = {"limits": thresholds.of(version.manifest["config"]), "targets": config.targets, "collapsed": collapsed}
        numbers = stats(ledger, votes, annotators=people, slices=config.slices, **more)
        atomic.write_json(folder / "stats.json", numbers)
        shown = opened.comparisons().filter(pl.col("comparison_id").is_in(sorted(example_ids(numbers)))).collect()
        shards.write_table(shown, folder / "examples.parquet", shards.ShardSettings())
        (folder / "ledger.parquet").symlink_to(version.path.resolve() / "ledger.parquet")
        page.write(folder)
    print(f"  audit.html {(folder / 'audit.html').stat().st_size / 2**20:.2f} MB, {ledger.height:,} comparisons")


def open_audit(folder: Path) -> None:
    """Until the page has loaded, and until its end can be seen and it answers."""
    from helpers.browser import BINARY, chromium

    if BINARY is None:
        print("  no Chromium here: the page was not opened")
        return
    with chromium(folder / "profile") as browser:
        with timed("audit.html, to load"):
            browser.open((folder / "audit.html").as_uri())
        with timed("audit.html, all unfolded, to its end"):
            browser.ask("document.querySelectorAll('details').forEach(part => part.open = true)")
            browser.ask("scrollTo(0, document.documentElement.scrollHeight)")
            browser.call("Page.captureScreenshot", format="png")


def ask(store: Path) -> None:
    """What a person asks of it afterwards."""
    from dpo_data.analysis import diff, explain, sql
    from dpo_data.review import results
    from dpo_data.store import versions

    version = versions.open_version(store)
    ids = version.ledger().select("comparison_id").collect()["comparison_id"]
    with timed("dpo decide, one limit"):
        decide_again(store, "current", {"agreement.min_agreement": 0.7})
    with timed("dpo diff, a version with itself"):
        diff.compare_versions(store, "current", "current")
    with timed("dpo explain, by id"):
        story = explain.explain(store, ids[len(ids) // 2])
    text = max(story["response_a"], story["response_b"], key=len)
    with timed("dpo explain, by a piece of text"), suppress(versions.DataError):  # near copies: they are listed
        explain.explain(store, text[:60])
    with timed("dpo sql, a count by source"):
        sql.query(store, "select source, count(*) from ledger where kept group by 1")
    with timed("dpo sql, the votes of one annotator"):
        sql.query(store, "select count(*) from votes where annotator = 'annotator1'")
    read(store)
    with timed("dpo review --findings"):
        results.findings(store, version)


def read(store: Path) -> None:
    """The review as a browser asks for it; no verdict is given."""
    from starlette.testclient import TestClient

    from dpo_data.review.app import create_app

    with TestClient(create_app(store), base_url="http://127.0.0.1") as browser:
        token = re.findall(r'name="form_token" value="([^"]+)"', browser.get("/").text)[-1]
        with timed("dpo review, the first page"):
            browser.post("/enter", data={"form_token": token, "reviewer": "bench"}).raise_for_status()
        with timed("dpo review, a comparison"):
            browser.get("/read?q=kept").raise_for_status()


def main() -> None:
    print(
        f"{time.strftime('%Y-%m-%d')}, {platform.processor() or platform.machine()}, {os.cpu_count()} cores, "
        f"Python {platform.python_version()}, load {os.getloadavg()[0]:.1f}"
    )
    with tempfile.TemporaryDirectory() as rooms:
        store, folder = Path(sys.argv[1]) if sys.argv[1:] else Path(rooms) / "store", Path(rooms) / "audit"
        folder.mkdir()
        if not sys.argv[1:]:
            from bench_publish import plant
            from helpers.planted_version import FACTS, config

            from dpo_data import curate

            facts = plant(store, _ROWS).drop(*curate.DECIDED).with_columns(FACTS)
            publish_version(store, curate.decide(facts, config()), config())
        write_audit(store, folder)
        open_audit(folder)
        ask(store)
    print(f"bars at 1,000,000: audit {BAR_AUDIT} s, its page {BAR_PAGE} MB")


if __name__ == "__main__":
    main()
