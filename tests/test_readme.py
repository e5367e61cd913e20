"""The READMEs stay true: links resolve, commands, extras, losses and folders are documented, the top one is short."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import pytest
from typer.testing import CliRunner

from flows.cli.app import app
from flows.recipe import load, train_config

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
FOLDERS = ("dpo_data", "dpo_train", "flows", "tests", "data")
STORE = ROOT / "data" / "store"  # its versions and runs have cards of their own
PAGES = [
    README,
    ROOT / "CHANGELOG.md",
    *(path for name in FOLDERS for path in sorted((ROOT / name).rglob("README.md")) if STORE not in path.parents),
]
LINK = re.compile(r"\]\((?![a-z]+:)([^)\s]+)\)")


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def without_code(text: str) -> str:
    return re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)


def anchors(text: str) -> set[str]:
    """The anchors that GitHub gives to the headings of a page."""
    found: dict[str, int] = {}
    for heading in re.findall(r"^#+ (.+)$", without_code(text), flags=re.MULTILINE):
        slug = re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")
        found[slug] = found.get(slug, -1) + 1
    return {slug if not place else f"{slug}-{place}" for slug, last in found.items() for place in range(last + 1)}


def broken_links(page: Path, text: str) -> Iterator[str]:
    """Relative links of a page whose file or anchor does not exist."""
    for target in LINK.findall(without_code(text)):
        name, _, anchor = unquote(target).partition("#")
        path = (page.parent / name).resolve() if name else page
        if not path.exists() or not path.is_relative_to(ROOT):
            yield f"{page.relative_to(ROOT)}: {target} does not exist"
        elif anchor and anchor not in anchors(text if path == page else text_of(path)):
            yield f"{page.relative_to(ROOT)}: {target} has no such heading"


def commands() -> set[str]:
    listed = CliRunner().invoke(app, ["--help"]).output.split("Commands:")[1]
    return set(re.findall(r"^ {2}([a-z]+) ", listed, flags=re.MULTILINE))


def named_commands(text: str) -> set[str]:
    return set(re.findall(r"(?:^|[`/]|-- |python )dpo ([a-z]+)\b", text, flags=re.MULTILINE))


def table_entries(text: str) -> set[str]:
    """The names in the first column of every table: `losses/`, [`losses/`](…) and `ablation` give the bare name."""
    rows = re.findall(r"^\| *([^|]+?) *\|", text, flags=re.MULTILINE)
    return {name.rstrip("/") for row in rows for name in re.findall(r"`([^`]+)`", row)}


def subfolders(folder: Path) -> set[str]:
    return {path.parent.relative_to(folder).parts[0] for path in folder.glob("*/__init__.py")}


def undocumented(names: set[str], text: str) -> set[str]:
    return names - table_entries(text)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_resolve(page: Path) -> None:
    assert list(broken_links(page, text_of(page))) == []


def test_the_top_readme_has_at_most_150_lines() -> None:
    assert len(text_of(README).splitlines()) <= 150


def test_every_command_is_in_the_table_and_exists() -> None:
    table = "\n".join(re.findall(r"^\| (`dpo .+)$", text_of(README), flags=re.MULTILINE))
    assert named_commands(table) == commands()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_named_command_exists(page: Path) -> None:
    assert named_commands(text_of(page)) <= commands()


def test_every_make_target_of_a_readme_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", text_of(ROOT / "Makefile"), flags=re.MULTILINE))
    for page in PAGES:
        assert set(re.findall(r"(?:^|`)make ([a-z]+)\b", text_of(page), flags=re.MULTILINE)) <= targets, page


def test_every_extra_is_documented() -> None:
    extras = set(tomllib.loads(text_of(ROOT / "pyproject.toml"))["project"]["optional-dependencies"])
    assert {"ray", "s3", "dev"} <= extras
    for extra in extras:
        assert f"extra `{extra}`" in text_of(README), extra
    assert {f"dpo-pipeline[{extra}]" for extra in extras} <= table_entries(text_of(ROOT / "flows" / "README.md"))


def test_every_top_folder_is_in_the_table() -> None:
    assert undocumented(set(FOLDERS), text_of(README)) == set()


@pytest.mark.parametrize("package", ["dpo_data", "dpo_train", "flows"])
def test_every_folder_of_a_package_is_in_its_table(package: str) -> None:
    folders = subfolders(ROOT / package)
    assert folders
    assert undocumented(folders, text_of(ROOT / package / "README.md")) == set()


def test_every_folder_and_helper_of_the_tests_is_in_its_table() -> None:
    text = text_of(ROOT / "tests" / "README.md")
    folders = {path.name for path in (ROOT / "tests").iterdir() if path.is_dir() and path.name[0] not in "_."}
    helpers = {path.stem for path in (ROOT / "tests" / "helpers").glob("*.py") if path.stem != "__init__"}
    assert undocumented(folders | helpers, text) == set()


def test_every_loss_is_in_the_table_of_losses() -> None:
    folder = ROOT / "dpo_train" / "losses"
    code = "\n".join(text_of(path) for path in folder.glob("*.py"))
    losses = set(re.findall(r'loss_type: Literal\["(\w+)"\]', code))
    assert "sigmoid" in losses
    assert undocumented(losses, text_of(folder / "README.md")) == set()


def test_every_script_of_measured_figures_is_named() -> None:
    folder = ROOT / "tests" / "bench"
    for script in folder.glob("bench_*.py"):
        assert script.name in text_of(folder / "README.md"), script.name


def test_the_recipe_of_the_readme_is_valid(tmp_path: Path) -> None:
    [recipe] = re.findall(r"^```yaml\n(.*?)^```", text_of(README), flags=re.MULTILINE | re.DOTALL)
    (tmp_path / "recipe.yaml").write_text(recipe, encoding="utf-8")
    loaded = load(tmp_path / "recipe.yaml")
    assert [source.name for source in loaded.sources] == ["votes"]
    assert train_config(loaded).loss.loss_type == "sigmoid"


@pytest.mark.parametrize(
    "link",
    ["[gone](nowhere.md)", "[gone](dpo_data/nowhere)", "[no heading](README.md#nowhere)", "[outside](../nowhere)"],
)
def test_a_broken_link_is_noticed(link: str) -> None:
    assert len(list(broken_links(README, f"# Title\n\n{link}\n"))) == 1


def test_a_link_to_a_heading_is_followed() -> None:
    assert list(broken_links(README, "# A title, with `code`\n\n[up](#a-title-with-code)\n")) == []


def test_an_undocumented_folder_or_command_is_noticed() -> None:
    text = "| folder | contents |\n| --- | --- |\n| [`losses/`](losses) | see `policy/` |\n"
    assert undocumented({"losses", "policy"}, text) == {"policy"}
    assert named_commands("`dpo train` and\n.venv/bin/dpo nosuch") == {"train", "nosuch"}
