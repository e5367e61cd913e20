"""Files with chosen and rejected responses: transcripts.jsonl.gz, chats.jsonl and forum.jsonl."""

from dataclasses import replace
from random import Random
from typing import Any

from answers import answer_first, rambling
from drafts import SWAPPED_DESK, Deck, Draft, alike, broken_lines, line, nearly, scatter
from questions import ENGLISH
from truth import Row, Truth

LONGER_WINS = 0.8  # in the forum, whatever the merit


def transcripts(deck: Deck, truth: Truth, rng: Random) -> tuple[bytes, list[Draft]]:
    """HH-style transcripts, gzipped; one in four has an earlier turn."""
    drafts = [deck.draft(ENGLISH, turns=2 if i % 4 == 0 else 1) for i in range(50)]
    rows: list[Row] = []
    for number, draft in enumerate(drafts):
        rows.append((None, line(_transcript(draft))))
        if number % 11 == 6:  # the same record again in the same file
            rows.append((None, line(_transcript(draft))))
            truth.plant("repeated_in_file", draft.id)
    scatter(rows, broken_lines(_transcript(drafts[0]), "chosen"), rng)
    return truth.jsonl("transcripts.jsonl.gz", "hh_rlhf", rows), drafts


def _transcript(draft: Draft) -> dict[str, str]:
    names = {"user": "Human", "assistant": "Assistant"}
    turns = "".join(f"\n\n{names[message['role']]}: {message['content']}" for message in draft.prompt)
    return {
        "chosen": f"{turns}\n\nAssistant: {draft.chosen}",
        "rejected": f"{turns}\n\nAssistant: {draft.rejected}",
    }


def chats(deck: Deck, truth: Truth, rng: Random, told: list[Draft]) -> bytes:
    """TRL conversations: the swapped desk among others, two languages, repeats, near copies, contradictions."""
    desks = [SWAPPED_DESK, None, None]  # one in three comes from the swapped desk, whatever it is about
    drafts = [deck.draft([language], desk=desks[i % 3]) for language in ("german", "spanish") for i in range(16)]
    drafts += [deck.draft(ENGLISH, turns=2 if i % 5 == 0 else 1, desk=desks[i % 3]) for i in range(82)]
    rng.shuffle(drafts)
    again = [draft for i, draft in enumerate(told) if i % 7 == 2]
    for draft in again:
        truth.plant("repeated_across_files", draft.id)
    truth.plants["flipped_slice"]["comparisons"]["chats"] = sum(draft.flipped for draft in drafts)
    wordy = [draft for draft in drafts if draft.words >= 60 and draft.question.language == "en"][:24]
    copies = [nearly(draft, rng) for draft in wordy]
    for draft, copy in zip(wordy, copies, strict=True):
        truth.plant("near_duplicates", [draft.id, copy.id])
    everything = drafts + again + copies
    rng.shuffle(everything)
    rows: list[Row] = [(None, line(_chat(draft, draft.chosen, draft.rejected))) for draft in everything]
    plain = [draft for draft in drafts if draft not in wordy and not draft.flipped]
    for draft in plain[:10]:  # the same pair once more, the other way round
        rows.append((None, line(_chat(draft, draft.rejected, draft.chosen))))
        truth.plant("contradictory", draft.id)
    _blanks(deck, truth, rows)
    scatter(rows, broken_lines(_chat(drafts[0], drafts[0].chosen, drafts[0].rejected), "chosen"), rng)
    return truth.jsonl("chats.jsonl", "trl", rows)


def _chat(draft: Draft, chosen: object, rejected: object) -> dict[str, Any]:
    return {
        "prompt": draft.prompt,
        "chosen": [{"role": "assistant", "content": chosen}],
        "rejected": [{"role": "assistant", "content": rejected}],
        "category": draft.question.category,
        "desk": draft.desk,
    }


def _blanks(deck: Deck, truth: Truth, rows: list[Row]) -> None:
    """Responses that are blank, and one that is the JSON value true."""
    for value in ("", " \n ", True):
        text, reason = ("true", "response_not_text") if value is True else (str(value), "blank_response")
        draft = replace(deck.draft(ENGLISH), better=text)
        rows.insert(40, (None, line(_chat(draft, value, draft.rejected))))
        truth.plant("blank", {"comparison_id": draft.id, "reason": reason})


def forum(deck: Deck, truth: Truth, rng: Random) -> bytes:
    """TRL plain pairs of equal merit in which the longer response wins by habit; and pairs too alike to teach."""
    rows: list[Row] = []
    longer_wins = 0
    for number in range(110):
        question = deck.question(ENGLISH)
        form = answer_first if number % 2 else rambling
        sizes = ((0, 2), (0, 1), (1, 2))[number % 3]
        low, high = sorted((form(question, size, rng) for size in sizes), key=len)
        while len(high) < len(low) + 12:
            high = form(question, 2, rng)
        habit = rng.random() < LONGER_WINS
        longer_wins += habit
        chosen, rejected = (high, low) if habit else (low, high)
        prompt = deck.prompt(question)[0]["content"]
        record = {"prompt": prompt, "chosen": chosen, "rejected": rejected, "category": question.category}
        rows.append((None, line(record)))
    truth.plants["length_biased"] = {"source": "forum", "comparisons": 110, "longer_wins": longer_wins}
    for number in range(30):
        draft = deck.draft(ENGLISH)
        text = rambling(draft.question, 2, rng) if number % 2 else answer_first(draft.question, 2, rng)
        other = text if number >= 25 else alike(text, rng)
        twin = Draft(draft.question, draft.prompt, text, other)
        truth.plant("identical" if other == text else "too_alike", twin.id)
        prompt, category = draft.prompt[0]["content"], draft.question.category
        record = {"prompt": prompt, "chosen": text, "rejected": other, "category": category}
        rows.insert(rng.randrange(len(rows)), (None, line(record)))
    scatter(rows, broken_lines(record, "chosen"), rng)
    return truth.jsonl("forum.jsonl", "trl", rows)
