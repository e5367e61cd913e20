"""HH-RLHF: `chosen` and `rejected` as whole `\\n\\nHuman: …\\n\\nAssistant: …` transcripts.

The prompt is the common prefix by turn, never by character: two answers that open with the same
words keep them. Four traps are kept as the source has them: consecutive Human turns, blank final
answers, identical answers, and pairs that differ before the last turn (see `messages.diverge`).
"""

from collections.abc import Iterator

from dpo_data.reading.messages import TRANSCRIPT, diverge, transcript
from dpo_data.reading.records import Item, Record, Vote, text_of


def detect(record: Record) -> bool:
    """Two transcripts and no separate prompt."""
    return record.get("prompt") is None and all(
        isinstance(record.get(key), str) and TRANSCRIPT.search(f"\n\n{record[key][:200]}") is not None
        for key in ("chosen", "rejected")
    )


def parse(record: Record) -> Iterator[Item]:
    """One vote a record; the first side is `chosen`."""
    chosen, rejected = transcript(text_of(record, "chosen")), transcript(text_of(record, "rejected"))
    prompt, first, second, attributes = diverge(chosen, rejected)
    yield Vote(prompt, first, second, "first", annotator_kind="human", attributes=attributes)
