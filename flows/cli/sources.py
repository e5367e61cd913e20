"""`dpo sources` and `dpo forget`: what the store read, which of it counts, and how to take it out and back in."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.options import Json, Store
from flows.environment import STORE
from flows.output import answer
from flows.source_text import batch_lines, change_lines, departed_lines

if TYPE_CHECKING:
    pass

app = typer.Typer()


@app.command()
def sources(
    store: Store = STORE,
    recipe: Annotated[
        Path | None, typer.Option(help="Also report the sources in the store that this recipe does not name.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Every batch with its source, files, format, date and counts, and whether it is superseded or forgotten."""
    from dpo_data.analysis import sources
    from flows.recipe import load

    names = None if recipe is None else [source.name for source in load(recipe).sources]
    rows = sources.rows(store, names)
    gone = [] if names is None else sources.departed(store, names)
    value = {"batches": [asdict(row) for row in rows], "departed": [asdict(row) for row in gone]}
    answer(value, as_json, [*batch_lines(rows, store), *departed_lines(value["departed"], store)])


@app.command()
def forget(
    source: Annotated[str | None, typer.Option(help="Leave out every batch of this source, later ones too.")] = None,
    batch: Annotated[str | None, typer.Option(help="Leave out this batch (the start of its id is enough).")] = None,
    annotator: Annotated[str | None, typer.Option(help="Leave out every vote of this annotator from now on.")] = None,
    comparison: Annotated[str | None, typer.Option(help="Leave out this comparison from now on.")] = None,
    undo: Annotated[bool, typer.Option("--undo", help="Take the same selector back in.")] = False,
    store: Store = STORE,
    as_json: Json = False,
) -> None:
    """Take a source, a batch, an annotator or a comparison out of every future version, or with --undo back in."""
    from dpo_data.analysis import forgetting

    given = {"source": source, "batch": batch, "annotator": annotator, "comparison": comparison}
    if sum(name is not None for name in given.values()) != 1:
        raise typer.BadParameter("give exactly one of --source, --batch, --annotator and --comparison")
    change = forgetting.forget(store, undo=undo, **given)
    answer({**asdict(change), "undo": undo}, as_json, change_lines(change, undo, store))
