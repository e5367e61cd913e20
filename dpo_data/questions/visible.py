"""Text of the data, made visible: control characters, direction marks and zero-width characters as signs.

Escaping keeps a page from running what a text says; this keeps a text from looking like what it is not: a direction
mark can turn a line around, a zero-width space can tell two equal words apart. For pages only: nothing stored changes.
"""

import re

_HIDDEN = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb]"
)


def visible(text: str) -> str:
    """ESC as ␛ and its like; marks without a sign of their own as ⟨U+202E⟩. Line ends and tabs stay."""
    return _HIDDEN.sub(_sign, text.replace("\r\n", "\n"))


def short(text: object, most: int = 80) -> str:
    """A name for a table: one line, at most so many characters."""
    line = " ".join(str(text).split())
    return line if len(line) <= most else f"{line[: most - 1]}…"


def _sign(match: re.Match[str]) -> str:
    code = ord(match[0])
    return chr(0x2400 + code) if code < 0x20 else "␡" if code == 0x7F else f"⟨U+{code:04X}⟩"
