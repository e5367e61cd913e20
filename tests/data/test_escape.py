"""The one filter of hidden characters, and that pages, stories and the terminal share it."""

import json
import os
import pty
import re
import sys
import unicodedata
from pathlib import Path

import pytest

from dpo_data.analysis import explain_text
from dpo_data.text.escape import HIDDEN, inert, visible
from flows import output

ROOT = Path(__file__).resolve().parents[2]
C0 = [chr(code) for code in range(0x20) if chr(code) not in "\t\n"]
C1 = [chr(code) for code in range(0x7F, 0xA0)]
BIDI = [chr(code) for code in range(sys.maxunicode + 1) if unicodedata.bidirectional(chr(code)) in
        {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}]  # fmt: skip
MARKS = ["\u061c", "\u200e", "\u200f"]
NO_WIDTH = ["\u200b", "\u2060", "\u2061", "\ufeff", "\u180e", "\U000e0041"]
SEPARATORS = ["\u2028", "\u2029", "\x85"]
KEPT = "tab\tline\nä ü 漢字 नमस्ते \u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645 👩\u200d🚀 ␛ \xa0"


@pytest.mark.parametrize("group", [C0, C1, BIDI, MARKS, NO_WIDTH, SEPARATORS, ["\ud800", "\udfff"]])
def test_no_hidden_character_of_a_kind_passes(group: list[str]) -> None:
    assert group
    for char in group:
        for clean in (inert, visible):
            assert not HIDDEN.search(clean(f"a{char}b")), f"U+{ord(char):04X}"
            assert clean(f"a{char}b") != "ab"  # shown, not dropped


def test_text_of_any_script_stays_as_it_is() -> None:
    assert inert(KEPT) == visible(KEPT) == KEPT
    assert inert("a\r\nb") == visible("a\r\nb") == "a\nb"


def test_there_is_one_filter() -> None:
    assert output.inert is inert and explain_text.inert is inert  # type: ignore[attr-defined]
    classes = re.compile(r"\[[^\]]*\\x(?:7f|80|9f)|\\u202[a-e]")
    with_one = [
        str(path.relative_to(ROOT))
        for package in ("dpo_data", "dpo_train", "flows")
        for path in (ROOT / package).rglob("*.py")
        if classes.search(path.read_text(encoding="utf-8"))
    ]
    assert with_one == ["dpo_data/text/escape.py"]


@pytest.mark.parametrize("terminal", [True, False])
def test_json_is_escaped_on_a_terminal_and_exact_in_a_pipe(
    terminal: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    value = {"text": "\x9b2J \u202eabc \x85 ä"}
    if terminal:
        ours, theirs = pty.openpty()
        with os.fdopen(theirs, "w", encoding="utf-8") as stream:
            monkeypatch.setattr(sys, "stdout", stream)
            output.answer(value, True, [])
            written = os.read(ours, 10_000).decode()
        os.close(ours)
        assert written.isascii()
    else:
        with (tmp_path / "out").open("w+", encoding="utf-8") as stream:
            monkeypatch.setattr(sys, "stdout", stream)
            output.answer(value, True, [])
            stream.seek(0)
            written = stream.read()
        assert "\u202e" in written
    assert json.loads(written) == value


def test_a_message_is_inert_and_cut_in_the_middle() -> None:
    said = output.sentence(ValueError("found \x1b]0;own\x07" + "key, " * 20_000 + "Name the format."))
    assert len(said) < 2_200 and not HIDDEN.search(said)
    assert said.startswith("found ") and said.endswith("Name the format.") and "characters left out" in said
