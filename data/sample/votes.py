"""Files with single votes: named people (studio.csv), judge models (judged.jsonl), triples (triples.json)."""

import csv
import io
import json
from datetime import UTC, datetime
from random import Random

from drafts import SWAPPED_DESK, Deck, Draft, broken_lines, line, scatter
from questions import ENGLISH
from truth import Row, Truth

ANNOTATORS = {"kim": 0.93, "lena": 0.88, "marco": 0.82, "noor": 0.5, "otto": 0.15}  # P(votes for the better one)
JUDGES = {"judge-large": 0.94, "judge-small": 0.8, "judge-tiny": 0.7}
COLUMNS = ["question_id", "category", "prompt", "response_a", "response_b", "winner", "annotator", "at", "shown_first",
           "desk"]  # fmt: skip
OTHER = {"model_a": "model_b", "model_b": "model_a", "tie": "tie"}


def moment(seconds: int) -> str:
    """ISO time, `seconds` after the first vote."""
    return datetime.fromtimestamp(1_790_000_000 + seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def sides(draft: Draft, swapped: bool) -> tuple[str, str]:
    """The responses as shown: what the raw data prefers comes first unless swapped."""
    return (draft.rejected, draft.chosen) if swapped else (draft.chosen, draft.rejected)


def studio(deck: Deck, truth: Truth, rng: Random) -> bytes:
    """A/B winner table, one row a vote: 3 to 5 of five named annotators, sides shown in random order."""
    rows: list[list[str]] = []
    better: dict[str, str] = {}
    tally = {name: {"right": 0, "decided": 0} for name in ANNOTATORS}
    for number in range(100):
        draft = deck.draft(ENGLISH)
        better[draft.id] = draft.better
        all_tie = number % 12 == 5
        if all_tie:
            truth.plant("ties", draft.id)
        votes = _votes(number, draft, all_tie, rng)
        for vote in votes:
            tally[vote[6]]["decided"] += vote[5] != "tie"
            tally[vote[6]]["right"] += vote[5] == ("model_a" if vote[3] == draft.better else "model_b")
        rows += votes
        if votes[0][5] != "tie" and number % 14 in (3, 8):
            # Once a change of mind the day after (the later vote counts), once two contradicting clicks in one second.
            later = moment(3600 * number + 86400) if number % 14 == 3 else votes[0][7]
            rows.append([*votes[0][:5], OTHER[votes[0][5]], votes[0][6], later, *votes[0][8:]])
            plant = "changed_minds" if number % 14 == 3 else "self_contradictions"
            truth.plant(plant, {"comparison_id": draft.id, "annotator": votes[0][6]})
    unreadable = _spoil(rows, truth)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(rows)
    truth.file("studio.csv", "ab_table", len(rows), unreadable)
    truth.plants["annotators"] = {name: {"reliability": share} | tally[name] for name, share in ANNOTATORS.items()}
    truth.plants["studio_better"] = better
    return out.getvalue().encode("utf-8", "surrogateescape")


def _votes(number: int, draft: Draft, all_tie: bool, rng: Random) -> list[list[str]]:
    rows = []
    for k, name in enumerate(rng.sample(sorted(ANNOTATORS), rng.choice((3, 4, 5, 5)))):
        swapped = rng.random() < 0.5
        right = rng.random() < ANNOTATORS[name]
        tie = all_tie or rng.random() < 0.03
        winner = "tie" if tie else "model_b" if right == swapped else "model_a"
        prompt = draft.prompt[0]["content"]
        at = moment(3600 * number + 60 * k)
        shown = [prompt, *sides(draft, swapped), winner, name, at, "a", draft.desk]
        rows.append([f"s{number:03d}", draft.question.category, *shown])
    return rows


def _spoil(rows: list[list[str]], truth: Truth) -> list[tuple[int, str]]:
    """Insert broken rows; returns the unreadable ones as (line on which the row starts, what is wrong)."""
    spoils = {20: (5, "model_c", "unknown winner"), 75: (5, "", "no winner"), 260: (2, "caf\udce9?", "not UTF-8")}
    spoils |= {140: (3, "", "blank_response"), 200: (2, " ", "blank_prompt")}
    for position, (column, text, _) in sorted(spoils.items()):  # what is inserted later moves nothing above it
        row = [*rows[position]]
        row[column] = text
        rows.insert(position, row)
    rows.insert(300, rows[300][:4])
    spoils[300] = (5, "", "cut")
    unreadable = []
    line_number = 2  # below the header
    for position, row in enumerate(rows):
        what = spoils.get(position, (0, "", ""))[2]
        if what.startswith("blank"):
            truth.plant("blank", {"origin": f"studio.csv:{line_number}", "reason": what})
        elif what:
            unreadable.append((line_number, what))
        line_number += 1 + sum(cell.count("\n") for cell in row)
    return unreadable


def judged(deck: Deck, truth: Truth, rng: Random) -> tuple[bytes, list[Draft]]:
    """A/B table by three judge models, some prompts of several turns; some comparisons shown in both orders."""
    rows: list[Row] = []
    desks = [SWAPPED_DESK, SWAPPED_DESK, None, None, None]
    drafts = [deck.draft(ENGLISH, turns=2 if i % 11 == 0 else 1, desk=desks[i % 5]) for i in range(66)]
    rng.shuffle(drafts)
    truth.plants["flipped_slice"]["comparisons"]["judged"] = sum(draft.flipped for draft in drafts)
    for number, draft in enumerate(drafts):
        tie = number % 11 == 7
        if tie:
            truth.plant("ties", draft.id)
        for judge, reliability in JUDGES.items():
            right = rng.random() < reliability
            swapped = rng.random() < 0.5
            orders = [swapped]
            if number % 9 == 4 and judge == "judge-large":
                orders.append(not swapped)
                truth.plant("both_orders", draft.id)
            for order in orders:
                first, second = sides(draft, order)
                record = {
                    "prompt": draft.prompt,
                    "response_a": first,
                    "response_b": second,
                    "winner": "tie" if tie else "model_b" if right == order else "model_a",
                    "annotator": judge,
                    "annotator_kind": "model",
                    "category": draft.question.category,
                    "desk": draft.desk,
                    "at": moment(1000 * number),
                    "shown_first": "a",
                }
                rows.append((None, line(record)))
    scatter(rows, broken_lines(record, "response_a"), rng)
    truth.plants["judges"] = JUDGES
    return truth.jsonl("judged.jsonl", "ab_table", rows), drafts


def triples(deck: Deck, truth: Truth, rng: Random, told: list[Draft]) -> bytes:
    """PandaLM's shape: two responses, three annotators (0 tie, 1, 2); some comparisons again in swapped order."""
    drafts = [deck.draft(ENGLISH) for _ in range(30)]
    shared = [draft for i, draft in enumerate(told) if i % 9 == 5 and len(draft.prompt) == 1 and not draft.flipped]
    for draft in shared:
        truth.plant("repeated_across_files", draft.id)
    records: list[dict[str, object]] = []
    for number, draft in enumerate(drafts + shared):
        swapped = rng.random() < 0.5
        all_tie = number % 10 == 3 and number < 30
        votes = [0 if all_tie else 1 + ((rng.random() < 0.9) == swapped) for _ in range(3)]
        if all_tie:
            truth.plant("ties", draft.id)
        first, second = sides(draft, swapped)
        records.append(_triple(number, draft, first, second, votes))
        if number % 12 == 1:
            records.append(_triple(1000 + number, draft, second, first, [(0, 2, 1)[vote] for vote in votes]))
            truth.plant("swapped", draft.id)
    records[20]["response1"] = True
    truth.plant("blank", {"origin": "triples.json:21", "reason": "response_not_text"})
    truth.file("triples.json", "pandalm", len(records), [])
    return (json.dumps(records, ensure_ascii=False, indent=1) + "\n").encode()


def _triple(number: int, draft: Draft, first: str, second: str, votes: list[int]) -> dict[str, object]:
    record: dict[str, object] = {"idx": number, "instruction": draft.prompt[0]["content"], "input": ""}
    record |= {"response1": first, "response2": second, "motivation_app": draft.question.category}
    return record | {f"annotator{k}": vote for k, vote in enumerate(votes, 1)}
