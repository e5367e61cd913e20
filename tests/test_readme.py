"""The README stays true: its commands and make targets exist, all of them are in it, its links lead somewhere."""

import re
from pathlib import Path

from typer.testing import CliRunner

from flows.cli.app import app

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


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
