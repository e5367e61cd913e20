"""The README stays true: its file map names every module, its commands exist, its links lead somewhere."""

import re
from pathlib import Path

from typer.testing import CliRunner

from flows.cli import app

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_file_map_names_every_module_once_and_none_that_is_gone() -> None:
    section = README.split("## Files")[1].split("\n## ")[0]
    named = re.findall(r"^\| `([\w/.]+\.(?:py|html|css|js))` \|", section, flags=re.MULTILINE)
    existing = {
        str(path.relative_to(ROOT))
        for package in ("dpo_data", "dpo_train", "flows")
        for path in (ROOT / package).rglob("*.*")
        if path.suffix in {".py", ".html", ".css", ".js"} and path.name != "__init__.py"
    }
    assert sorted(named) == sorted(existing)


def test_every_command_of_the_readme_exists() -> None:
    used = set(re.findall(r"(?:`|bin/)dpo ([a-z]+)\b", README))
    listed = CliRunner().invoke(app, ["--help"]).output.split("Commands:")[1]
    commands = set(re.findall(r"^ {2}([a-z]+) ", listed, flags=re.MULTILINE))
    assert used
    assert used <= commands
    assert commands <= used, "a command that the README does not mention"


def test_every_make_target_of_the_readme_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    assert set(re.findall(r"(?:^|`)make ([a-z]+)\b", README, flags=re.MULTILINE)) <= targets


def test_links_inside_the_repository_lead_somewhere() -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
