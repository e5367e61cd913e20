"""A short list of words and turns that the style guide bans stays out of code, pages and READMEs."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
BANNED = re.compile(
    r"the surprise|foretell|foretold|\banew\b|\bmend(?:ed|s)?\b|said aloud|stands? (?:beside|by itself|apart)|"
    r"\bspeaks? (?:for|of|against)\b|\bbe it\b|\bthe likes of\b|none that shout|"
    r"(?:one|a) (?:row|vote|batch|job|number|value) an? (?:pair|comparison|source|file|step|run)\b",
    re.IGNORECASE,
)
SUFFIXES = {".py", ".html", ".md", ".js"}


def files() -> list[Path]:
    packages = (path for name in ("dpo_data", "dpo_train", "flows") for path in (ROOT / name).rglob("*"))
    others = [ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "data" / "README.md", *(ROOT / "tests").rglob("*.md")]
    return [path for path in (*packages, *others) if path.suffix in SUFFIXES and path.is_file()]


def found_in(text: str) -> list[str]:
    """The banned turns of a text, also where a line break is inside one."""
    return [match[0] for match in BANNED.finditer(re.sub(r"\s+", " ", text))]


def test_banned_words_stay_out() -> None:
    texts = {str(path.relative_to(ROOT)): found_in(path.read_text(encoding="utf-8")) for path in files()}
    assert len(texts) > 200
    assert {name: found for name, found in texts.items() if found} == {}


@pytest.mark.parametrize("text", ["The\n    surprise: no", "one row a pair and step", "is made anew", "speaks for it"])
def test_the_list_finds_what_it_bans(text: str) -> None:
    assert found_in(text)
