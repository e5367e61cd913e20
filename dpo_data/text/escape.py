"""Hidden characters of the data's text: shown as signs on pages, replaced on a terminal.

Escaping keeps a page from running what a text contains; this keeps a text from looking like what it is not: an escape
sequence moves a terminal's cursor, a direction mark turns a line around, a zero-width space makes two words look equal.
The one list of such characters for pages, terminal output and logs; nothing stored changes.
"""

import re

# C0 but tab and line feed, DEL, C1, direction marks, zero-width characters, line and paragraph separators, byte order
# mark, annotation marks, lone surrogates, tag characters. The joiners U+200C and U+200D stay: Persian, Hindi and emoji
# are spelled with them.
HIDDEN = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    r"\ud800-\udfff\U000e0000-\U000e007f]"
)


def inert(text: str) -> str:
    """Text for a terminal or a log: a replacement character for each hidden one. Line ends and tabs stay."""
    return HIDDEN.sub("\N{REPLACEMENT CHARACTER}", text.replace("\r\n", "\n"))


def visible(text: str) -> str:
    """ESC as ␛ and its like; marks without a sign of their own as ⟨U+202E⟩. Line ends and tabs stay."""
    return HIDDEN.sub(_sign, text.replace("\r\n", "\n"))


def short(text: object, most: int = 80) -> str:
    """A name for a table: one line, at most so many characters."""
    line = " ".join(str(text).split())
    return line if len(line) <= most else f"{line[: most - 1]}…"


def _sign(match: re.Match[str]) -> str:
    code = ord(match[0])
    return chr(0x2400 + code) if code < 0x20 else "␡" if code == 0x7F else f"⟨U+{code:04X}⟩"
