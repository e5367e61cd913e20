"""Every `dpo …` line that a README, a page, an answer or a message prints can be typed as it is printed."""

import ast
import json
import re
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from html import unescape
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from helpers import synthetic_run
from typer.testing import CliRunner

from dpo_data.analysis.sql import query
from dpo_data.votes.agreement import AgreementLimits
from dpo_train.report import page
from flows.cli.app import app
from flows.recipe import load
from flows.refresh import refresh

ROOT = Path(__file__).resolve().parents[2]
READMES = [ROOT / "README.md", ROOT / "data" / "README.md"] + [
    page for name in ("dpo_data", "dpo_train", "flows", "tests") for page in sorted((ROOT / name).rglob("README.md"))
]
SLOW = {"refresh", "train", "retrain", "serve", "review"}  # checked to the level of their options


@dataclass(frozen=True)
class Place:
    """A store with two versions and a run, and what the placeholders of a printed line stand for in it."""

    store: Path
    names: dict[str, str]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    folder = tmp_path_factory.mktemp("printed")
    store, sample = folder / "store", ROOT / "data" / "sample" / "studio.csv"
    text = {
        "sources": [{"name": "studio", "path": str(sample)}],
        "curation": {"tokenizer": None, "embedding_model": None, "slices": ["desk"]},
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(text), encoding="utf-8")
    recipe = load(folder / "recipe.yaml")
    old = refresh(recipe, store)["version"]
    curation = recipe.curation.model_copy(update={"agreement": AgreementLimits(min_agreement=0.7)})
    new = refresh(recipe.model_copy(update={"curation": curation}), store)["version"]
    run = store / "runs" / "planted"
    synthetic_run.write_run(run, *synthetic_run.tables(prompts=40, splits=("validation", "train_probe")))
    (run / "config.json").write_text(json.dumps({"beta": synthetic_run.BETA, "version": new}))
    page.write(run)
    once = "count(*) OVER (PARTITION BY prompt[-1].content) = 1"
    row = query(store, f"SELECT comparison_id, prompt[-1].content AS text FROM comparisons QUALIFY {once} ORDER BY 1")[
        0
    ]
    voter = query(store, "SELECT min(annotator) AS name FROM votes")[0]["name"]
    names = {
        "PATH": str(sample),
        "my_votes.jsonl": str(sample),
        "FILE": str(folder / "out.csv"),
        "ID": row["comparison_id"],
        "a piece of a prompt": row["text"],
        "OLD": old,
        "NEW": new,
        "NAME": voter,
        "SOURCE": "studio",
        "otto": voter,
        "RUN": run.name,
        "recipe.yaml": str(folder / "recipe.yaml"),
        "BATCH": next(path.name for path in sorted((store / "batches").iterdir()) if path.is_dir()),
    }
    return Place(store, names)


def in_text(text: str) -> Iterator[str]:
    """Lines of fenced blocks and inline code, without comments."""
    fences = re.findall(r"^```[^\n]*\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    for line in "\n".join(fences).splitlines():
        found = re.match(r"\s*(?:\$ )?(?:\S+=\S+ )*(?:\S*/)?(dpo\b[^#|]*)", line)
        if found:
            yield found[1].split("  ")[0].strip()
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    for span in re.findall(r"`([^`]+)`", prose):
        found = re.search(r"(?:^|\s)(?:\S*/)?(dpo [a-z-].*)$", " ".join(span.split()))
        if found:
            yield found[1]


def in_page(path: Path) -> list[str]:
    return [unescape(line) for line in re.findall(r"<code>(dpo [^<]*)</code>", path.read_text(encoding="utf-8"))]


def in_source() -> set[str]:
    """The lines that string literals of the program quote in backticks; what is filled in at run time is X."""
    lines = set()
    for path in [path for package in ("dpo_data", "dpo_train", "flows") for path in (ROOT / package).rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            parts = node.values if isinstance(node, ast.JoinedStr) else [node]
            values = [part.value if isinstance(part, ast.Constant) else "X" for part in parts]
            text = "".join(value for value in values if isinstance(value, str))
            lines |= {line for line in re.findall(r"`(dpo [a-z-][^`\n]*)`", text) if "\n" not in line}
    return lines


def words(line: str, names: dict[str, str]) -> list[str]:
    """The arguments of a printed line, its placeholders filled in."""
    line = line.replace("--set …", "--set agreement.min_agreement=0.7").replace('--where "…"', "--where kept")
    line = line.replace("--token …", "--token secret").removesuffix(" …")
    return [names.get(word, word) for word in shlex.split(line)[1:]]


def check_options(args: list[str]) -> None:
    """Fail where the command would end with exit code 2; a command's bare name in prose is not a line."""
    group: Any = typer.main.get_command(app)
    try:
        context = group.make_context("dpo", list(args))
        name, command, rest = group.resolve_command(context, list(args))
        if rest:
            command.make_context(name, rest, parent=context)
    except Exception as error:  # of the click that typer brings, which has no public name
        raise AssertionError(f"dpo {shlex.join(args)}: {error}") from error


def answer(args: list[str], place: Place, folder: Path) -> str:
    """Run a line; what it prints. A failure of any kind fails the test."""
    store = place.store
    if args[0] == "forget":
        store = Path(shutil.copytree(store, folder / "copy", dirs_exist_ok=True))
    done = CliRunner().invoke(app, args, env={"DPO_STORE": str(store)})
    assert done.exit_code == 0, f"dpo {shlex.join(args)}: {done.output}{done.exception!r}"
    return done.stdout


def runs(args: list[str]) -> bool:
    quick = args[0] not in SLOW or "--findings" in args
    return (
        quick and len(args) + (args[0] in {"formats", "audit", "versions", "settings"}) > 1 and "--confirm" not in args
    )


def test_every_printed_line_is_understood_and_the_quick_ones_run(place: Place, tmp_path: Path) -> None:
    lines = {line for path in READMES for line in in_text(path.read_text(encoding="utf-8"))}
    assert {"dpo diff OLD NEW", "dpo report RUN", "dpo retrain"} <= lines and len(lines) > 30
    lines |= set(in_page(place.store / "versions" / place.names["NEW"] / "audit.html"))
    assert f"dpo diff {place.names['OLD']} {place.names['NEW']}" in lines
    printed: list[str] = []
    for line in sorted(lines):
        args = words(line, place.names)
        check_options(args)
        if runs(args):
            printed += in_text(answer(args, place, tmp_path).replace("dpo explain ID", "`dpo explain ID`"))
    assert "dpo explain ID" in printed
    for line in sorted({*printed, *in_source()}):
        check_options(words(line, place.names))


def test_every_line_of_a_report_is_understood_and_its_queries_run(place: Place, tmp_path: Path) -> None:
    lines = in_page(place.store / "runs" / "planted" / "report.html")
    assert {"sql", "explain", "report"} <= {line.split()[1] for line in lines}
    for line in lines:
        args = words(line, place.names)
        if "" not in line.split(" ")[2:]:  # the script fills one line in
            check_options(args)
        if args[0] == "sql":
            answer(args, place, tmp_path)


@pytest.mark.parametrize("line", ["dpo diff OLD --new NEW", "dpo audit --nosuch", "dpo nosuch", "dpo sql 'a' 'b'"])
def test_a_line_that_cannot_be_typed_is_noticed(place: Place, line: str) -> None:
    with pytest.raises(AssertionError):
        check_options(words(line, place.names))
