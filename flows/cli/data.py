"""The data scientist's half of the `dpo` command: audit, explain, decide, diff, sql, review, export.

Each reads a published version and changes nothing in it; `review` alone writes, a file of votes beside the batches.
"""

from pathlib import Path
from typing import Annotated

import typer

from flows.cli.options import Json, Store
from flows.environment import STORE
from flows.output import answer, columns, say

app = typer.Typer()


@app.command()
def audit(
    store: Store = STORE,
    version: Annotated[str, typer.Argument(help="A version's id.")] = "current",
    as_json: Json = False,
) -> None:
    """Where the audit page of a version lies, and its first screen in words."""
    from dpo_data.store.versions import open_version
    from flows.cli.text import stats_lines

    opened = open_version(store, version)
    page = opened.path / "audit.html"
    answer(
        {"version": opened.id, "audit": str(page), "stats": opened.stats},
        as_json,
        [*stats_lines(opened.stats), f"audit   {page}"],
    )


@app.command()
def explain(
    query: Annotated[str, typer.Argument(help="A comparison's id, a prefix of one, or a piece of its text.")],
    store: Store = STORE,
    as_json: Json = False,
) -> None:
    """The whole story of one comparison: votes, measures against limits, reasons, twins, margins."""
    from dpo_data.analysis import explain

    story = explain.explain(store, query)
    answer(story, as_json, [] if as_json else explain.render(story).splitlines())


@app.command()
def decide(
    sets: Annotated[
        list[str], typer.Option("--set", help="A limit to try: agreement.min_agreement=0.7. May be repeated.")
    ],
    store: Store = STORE,
    version: Annotated[str, typer.Option(help="Which version's measures.")] = "current",
    as_json: Json = False,
) -> None:
    """What other limits would keep and drop; reads no text and publishes nothing."""
    from dpo_data.analysis.what_if import decide_again
    from flows.cli.text import what_if_lines
    from flows.recipe import parse_overrides

    changed = decide_again(store, version, parse_overrides(sets))
    answer(changed, as_json, what_if_lines(changed))


@app.command()
def diff(
    old: Annotated[str, typer.Argument(help="A version's id or a prefix of one.")],
    new: Annotated[str, typer.Argument(help="The version to compare it with.")] = "current",
    store: Store = STORE,
    as_json: Json = False,
) -> None:
    """What entered, left, flipped or changed its split between two versions, and why."""
    from dpo_data.analysis.diff import compare_versions
    from flows.cli.text import diff_lines

    changed = compare_versions(store, old, new)
    answer(changed, as_json, diff_lines(changed))


@app.command()
def sql(
    query: Annotated[str, typer.Argument(help="SQL over ledger, pairs, votes, comparisons.")],
    store: Store = STORE,
    version: Annotated[str, typer.Option()] = "current",
    as_json: Json = False,
) -> None:
    """Ask a version in SQL (DuckDB)."""
    from dpo_data.analysis import sql

    rows = sql.query(store, query, version)
    names = list(rows[0]) if rows else []
    table = [names, *[[str(row[name])[:80] for name in names] for row in rows]]
    answer({"rows": rows}, as_json, columns(table, indent="") if rows else ["no rows"])


@app.command()
def review(
    store: Store = STORE,
    version: Annotated[str, typer.Option(help="Which version to review.")] = "current",
    host: Annotated[str, typer.Option(help="Where to listen; other than the loopback needs --token.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free one.")] = 8765,
    token: Annotated[str | None, typer.Option(help="What reviewers type once.", envvar="DPO_REVIEW_TOKEN")] = None,
    name: Annotated[list[str] | None, typer.Option(help="A further host name to serve. May be repeated.")] = None,
    findings: Annotated[bool, typer.Option("--findings", help="Print what the reviews found; serve nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Read comparisons blind in the browser; verdicts become votes at the next refresh."""
    from flows.cli.review import finding_lines, serve

    if findings:
        from dpo_data.review import results
        from dpo_data.store.versions import open_version

        found = results.findings(store, open_version(store, version))
        answer(found, as_json, finding_lines(found))
        return
    serve(store, version, host, port, token, tuple(name or ()), say)


@app.command()
def export(
    path: Annotated[Path, typer.Argument(help="The file to write.")],
    format: Annotated[str, typer.Option(help="csv, jsonl, argilla or label_studio.")] = "jsonl",
    where: Annotated[str, typer.Option(help="A condition over the ledger, in SQL.")] = "kept",
    sample: Annotated[int | None, typer.Option(min=1, help="At most so many, chosen at random for good.")] = None,
    store: Store = STORE,
    version: Annotated[str, typer.Option()] = "current",
    as_json: Json = False,
) -> None:
    """Write a selection of comparisons for other tools; Argilla and Label Studio files can be read back.

    A csv is for spreadsheets that separate by commas: cells that would run as formulas are disarmed, but a spreadsheet
    that separates by semicolons can cut one out of a text. Import it with the comma as its separator.
    """
    from typing import cast

    from dpo_data.analysis import export

    count = export.export(store, path, cast("export.Format", format), where=where, version=version, sample=sample)
    answer({"path": str(path), "comparisons": count}, as_json, [f"{count} comparisons written to {path}"])
