"""The `dpo` command: one page that says what can be asked, each command a few lines that call a room.

Exit codes: 0 fine, 1 failed (with a sentence on stderr: what was found, what was expected, what to do),
2 wrong use, 130 stopped by Ctrl-C, 143 by SIGTERM. Set DPO_DEBUG=1 to see the traceback behind a failure.
"""

import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from dpo_data.text.escape import inert
from flows import output
from flows.cli import data, runs, sources
from flows.cli.options import Json, Store, Yes, check_yes
from flows.environment import STORE, first_process, processes
from flows.output import answer, aside, columns, working

app = typer.Typer(
    help="Raw comparisons to audited preference pairs, to a DPO-trained policy, to the slices that moved the margins.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

RecipeFile = Annotated[Path, typer.Option("--recipe", help="YAML with sources, curation and training.")]
Overrides = Annotated[list[str] | None, typer.Option("--set", help="One setting: a.b=value. May be repeated.")]
WithoutPrefect = Annotated[bool, typer.Option("--no-prefect", help="Run the same stages without Prefect around them.")]

RECIPE = Path("data/sample/recipe.yaml")
app.add_typer(data.app)
app.add_typer(runs.app)
app.add_typer(sources.app)


@app.command()
def formats(as_json: Json = False) -> None:
    """The raw formats that can be read, and what each looks like."""
    from inspect import getmodule as inspect_module

    from dpo_data.formats import READERS

    modules = {name: inspect_module(reader.detect) for name, reader in READERS.items()}
    known = {name: (module.__doc__ or "").splitlines()[0] if module else "" for name, module in modules.items()}
    answer(known, as_json, columns([("format", "what it is"), *known.items()]))


@app.command()
def inspect(
    path: Annotated[str, typer.Argument(help="A file, a folder or a glob.")],
    format: Annotated[str | None, typer.Option(help="Its format, if it should not be detected.")] = None,
    as_json: Json = False,
) -> None:
    """What a file holds and what would become of it; writes nothing."""
    from dpo_data.ingest import paths, preview
    from flows.cli.text import inspection_lines

    found = [asdict(preview.inspect(file, format)) for file in paths.find(path, format=format)]
    answer({"files": found}, as_json, [line for file in found for line in inspection_lines(file)])


@app.command()
def refresh(
    recipe: RecipeFile = RECIPE,
    store: Store = STORE,
    sets: Overrides = None,
    no_prefect: WithoutPrefect = False,
    as_json: Json = False,
) -> None:
    """Ingest what is new, measure it, decide, and publish a version."""
    from flows.cli.text import refresh_lines
    from flows.recipe import load
    from flows.refresh import check_sources, refresh

    loaded = load(recipe, sets or ())
    if not no_prefect:
        check_sources(loaded)
    with working("refresh"):
        summary = _flow("refresh", refresh, store, no_prefect, loaded)
    answer(summary, as_json, refresh_lines(summary))


@app.command()
def versions(
    prune: Annotated[
        int | None, typer.Option(metavar="KEEP", help="Which versions could go, were only the KEEP newest to stay.")
    ] = None,
    yes: Yes = False,
    store: Store = STORE,
    as_json: Json = False,
) -> None:
    """Every version with its date, rows, parent, size and the runs that used it; with --prune, remove old ones."""
    from dpo_data.analysis import retention
    from flows.cli.text import pruning_lines, version_lines
    from flows.schedules import awaited

    check_yes(yes, prune)
    if prune is None:
        listed = retention.published(store)
        answer({"versions": [asdict(version) for version in listed]}, as_json, version_lines(listed))
        return
    found = (retention.prune if yes else retention.plan)(store, prune, awaited(store))
    answer({"removed": yes, **asdict(found)}, as_json, pruning_lines(found, yes))


@app.command()
def train(
    recipe: RecipeFile = RECIPE,
    store: Store = STORE,
    version: Annotated[str, typer.Option(help="Which version.")] = "current",
    sets: Overrides = None,
    plan: Annotated[bool, typer.Option("--plan", help="Estimate time and memory; train nothing.")] = False,
    merge: Annotated[bool, typer.Option("--merge", help="Write model/ too: the adapter merged into its base.")] = False,
    no_prefect: WithoutPrefect = False,
    as_json: Json = False,
) -> None:
    """Train on a version and write the slice report; goes on where an interrupted run stopped."""
    from flows.cli.text import plan_lines, train_lines
    from flows.recipe import load, train_config
    from flows.train import assist, train

    config = train_config(load(recipe, sets or ()), str(recipe))
    if not first_process():
        if not plan:
            _flow("train", assist, store, True, config, version)
        return
    if plan:
        from dpo_data.store.versions import open_version
        from dpo_train.plan import estimate

        expected = estimate(config, open_version(store, version).path)
        answer(expected, as_json, plan_lines(expected))
        return
    with working("train", own_bars=True):
        summary = _flow("train", train, store, no_prefect, config, version)
    if merge:
        from dpo_train.policy import merge_adapter

        summary["merged"] = str(merge_adapter.merge(Path(summary["path"])))
    answer(summary, as_json, train_lines(summary))


@app.command()
def report(
    run: Annotated[str, typer.Argument(help="A run's id, or a prefix of one.")],
    store: Store = STORE,
    confirm: Annotated[str | None, typer.Option(metavar="AXIS=VALUE", help="Retrain without this slice.")] = None,
    keep: Annotated[float, typer.Option(help="With --confirm: share of the slice that stays.")] = 0.0,
    seeds: Annotated[int, typer.Option(help="With --confirm: how many seeds, each with and without.")] = 2,
    as_json: Json = False,
) -> None:
    """Rewrite the slice report of a run and print its table; with --confirm, retrain without a slice first."""
    from dpo_train.report import page
    from flows.cli.text import confirmed_lines, report_lines
    from flows.train import confirm_slice, find_run

    folder = find_run(store, run)
    confirmed = None
    if confirm is not None:
        with working("confirm", own_bars=True):
            confirmed = confirm_slice(store, folder, confirm, keep, seeds)
    written = page.write(folder)
    lines = [*report_lines(folder), *confirmed_lines(confirmed), f"report  {written}"]
    answer({"run": folder.name, "report": str(written), "confirmed": confirmed}, as_json, lines)


@app.command()
def retrain(
    recipe: RecipeFile = RECIPE,
    store: Store = STORE,
    sets: Overrides = None,
    no_prefect: WithoutPrefect = False,
    as_json: Json = False,
) -> None:
    """Refresh, train on what was published, report the slices, and decide about promotion."""
    from flows.cli.text import retrain_lines
    from flows.recipe import load, train_config
    from flows.refresh import check_sources
    from flows.retrain import retrain

    loaded = load(recipe, sets or ())
    config = train_config(loaded, str(recipe))
    if not no_prefect:
        check_sources(loaded)
    with working("retrain", own_bars=True):
        summary = _flow("retrain", retrain, store, no_prefect, loaded, config)
    answer(summary, as_json, retrain_lines(summary))


@app.command()
def serve(
    recipe: RecipeFile = RECIPE,
    store: Store = STORE,
    cron: Annotated[str, typer.Option(help="When to refresh, as a cron expression.")] = "0 5 * * *",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Of the Prefect page; 0: any free one.")] = 4200,
) -> None:
    """Refresh on a schedule, and train whenever a refresh published something new."""
    from flows import schedules

    code = schedules.serve(recipe, store, cron, port)
    if code:
        raise typer.Exit(code)


@app.command()
def settings(as_json: Json = False) -> None:
    """Every setting of a recipe with its default."""
    import yaml

    from dpo_data.config import CurationConfig
    from dpo_train.config import TrainConfig

    known = {"curation": CurationConfig().model_dump(mode="json"), "training": TrainConfig().model_dump(mode="json")}
    answer(known, as_json, yaml.safe_dump(known, sort_keys=False).splitlines())


def _flow(name: str, work: Any, store: Path, no_prefect: bool, *args: Any) -> Any:
    from flows.steps import as_flow, plain

    try:
        return work(*args, store, step=plain) if no_prefect else as_flow(name, work, store, *args)
    except KeyboardInterrupt as stopped:  # here, since typer would end the command without a word
        said = inert(str(stopped)) or "Stopped; what was finished is kept, and the same command goes on from there."
        aside.print(said, markup=False)
        raise typer.Exit(getattr(stopped, "exit_code", 130)) from None


def main() -> None:
    """Run a command; a failure is a sentence, not a traceback."""
    try:
        if processes() > 1 and sys.argv[1:2] != ["train"]:
            from dpo_data.schema import DataError

            asked = " ".join(["dpo", *sys.argv[1:2]])
            raise DataError(
                f"a launcher started {processes()} processes of `{asked}`, and only a training can be shared out: run "
                "`dpo refresh` by itself, then launch `dpo train`."
            )
        app()
    except Exception as error:
        if os.environ.get("DPO_DEBUG"):
            raise
        first, *more = output.failure(error)
        aside.print(f"dpo: {first}", markup=False, style="red")
        for line in more:
            aside.print(line, markup=False)
        sys.exit(1)


if __name__ == "__main__":
    main()
