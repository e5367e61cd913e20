"""Two texts cut into pieces, those that differ marked, for side by side reading.

Words keep their white space, so the pieces of a side join to its text again, character by character. What
both sides begin and end with is set aside first, so long answers that share most of their text are compared as well.
"""

import difflib
import re

Piece = tuple[str, bool]  # text, whether it differs
MOST_WORDS = 800
"""Words compared of a side; difflib's time grows with the square."""
LEAST_SHARED = 0.3
"""Of the characters: where two answers share less, marks would cover nearly all of both and tell nothing."""
_WORD = re.compile(r"\w{1,40}\s*|[^\w\s]\s*|\s+")


def pieces(first: str, second: str, most: int = MOST_WORDS) -> tuple[list[Piece], list[Piece], bool]:
    """Both texts as (text, differs) pieces, and whether comparing them says anything.

    Where more than `most` words of a side remain between the common ends, that stretch is one differing piece. Where
    less than LEAST_SHARED is common, no piece is marked.
    """
    left, right = _WORD.findall(first), _WORD.findall(second)
    start = _common(left, right)
    end = _common(left[start:][::-1], right[start:][::-1])
    middle = left[start : len(left) - end], right[start : len(right) - end]
    compared = max(map(len, middle)) <= most
    cut = _cut(*middle) if compared else ([("".join(middle[0]), True)], [("".join(middle[1]), True)])
    ends = [(("".join(side[:start]), False), ("".join(side[len(side) - end :]), False)) for side in (left, right)]
    whole = [_joined([before, *inside, after]) for (before, after), inside in zip(ends, cut, strict=True)]
    if compared and _shared(whole) < LEAST_SHARED:
        return _joined([(first, False)]), _joined([(second, False)]), False
    return whole[0], whole[1], compared


def _shared(sides: list[list[Piece]]) -> float:
    """Share of the characters that stand in both texts; 1 for two empty ones."""
    sizes = [(len(text), differs) for side in sides for text, differs in side]
    whole = sum(size for size, _ in sizes)
    return sum(size for size, differs in sizes if not differs) / whole if whole else 1.0


def _common(left: list[str], right: list[str]) -> int:
    return next((at for at, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), min(len(left), len(right)))


def _cut(left: list[str], right: list[str]) -> tuple[list[Piece], list[Piece]]:
    cut_left: list[Piece] = []
    cut_right: list[Piece] = []
    for tag, i, j, k, m in difflib.SequenceMatcher(None, left, right, autojunk=False).get_opcodes():
        cut_left.append(("".join(left[i:j]), tag != "equal"))
        cut_right.append(("".join(right[k:m]), tag != "equal"))
    return cut_left, cut_right


def _joined(found: list[Piece]) -> list[Piece]:
    """Neighbours of one kind as one piece, none empty."""
    joined: list[Piece] = []
    for text, differs in found:
        if joined and joined[-1][1] == differs:
            joined[-1] = (joined[-1][0] + text, differs)
        elif text:
            joined.append((text, differs))
    return joined
