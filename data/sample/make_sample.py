"""Makes the raw files of this folder and `truth.json`, from a seed: `python data/sample/make_sample.py [FOLDER]`.

Each function below makes one file of one source in one format and plants what `truth.json` then tells. The texts
come from `questions.py` and `answers.py`. Run again, every byte is the same (of the .gz file: every byte inside).
"""

import csv
import gzip
import io
import json
import sys
from pathlib import Path
from random import Random
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parents[2])]

from answers import answer_first, rambling
from drafts import Deck, Draft, alike, broken_lines, line, nearly

SEED = 20261121
PLAIN = ["arithmetic", "facts", "rewriting", "lists", "planning", "explanations", "words"]
ANNOTATORS = {"kim": 0.93, "lena": 0.88, "marco": 0.82, "noor": 0.5, "otto": 0.15}  # P(votes for the better one)
JUDGES = {"judge-large": 0.94, "judge-small": 0.8}
LONGER_WINS = 0.8  # in the forum, whatever the merit
NOON = 1_790_000_000  # seconds; the first vote


class Truth:
    """What was planted, file by file and plant by plant."""

    def __init__(self) -> None:
        self.files: dict[str, dict[str, Any]] = {}
        self.plants: dict[str, Any] = {}

    def plant(self, name: str, value: object) -> None:
        """Add one planted thing to the list of its name."""
        self.plants.setdefault(name, []).append(value)


def by_merit(draft: Draft, reliability: float, rng: Random) -> bool:
    """Whether a voter of this reliability votes for the response that the labels of the slice call the better one."""
    return rng.random() < reliability


def jsonl(truth: Truth, name: str, kind: str, rows: list[tuple[str | None, bytes]]) -> bytes:
    """The file's bytes; `rows` are (what is wrong with the line or None, line)."""
    truth.files[name] = {
        "format": kind,
        "records": len(rows),
        "unreadable": [{"line": i, "kind": what} for i, (what, _) in enumerate(rows, 1) if what],
    }
    return b"".join(text + b"\n" for _, text in rows)


def scatter(rows: list[tuple[str | None, bytes]], broken: list[tuple[str, bytes]], rng: Random) -> None:
    """Put the broken lines somewhere among the rows, the cut one at the end as a crash leaves it."""
    for what, text in broken:
        rows.insert(len(rows) if what == "cut" else rng.randrange(1, len(rows)), (what, text))


def studio(deck: Deck, truth: Truth, rng: Random) -> bytes:
    """A/B winner table, one row a vote: 3 to 5 of five named annotators, sides shown in random order."""
    rows: list[list[object]] = []
    merit: dict[str, str] = {}
    for number in range(84):
        draft = deck.draft(PLAIN)
        everybody_ties = number % 12 == 5
        merit[draft.id] = draft.better
        if everybody_ties:
            truth.plant("ties", draft.id)
        for k, name in enumerate(rng.sample(sorted(ANNOTATORS), rng.choice((3, 4, 5, 5)))):
            swapped = rng.random() < 0.5
            first, second = (draft.worse, draft.better) if swapped else (draft.better, draft.worse)
            right = by_merit(draft, ANNOTATORS[name], rng)
            tie = everybody_ties or rng.random() < 0.03
            winner = "tie" if tie else "model_b" if right == swapped else "model_a"
            at = NOON + 3600 * number + 60 * k
            row = [
                f"s{number:03d}",
                draft.question.category,
                draft.prompt[0]["content"],
                first,
                second,
                winner,
                name,
                at,
            ]
            rows.append(row)
            if number % 14 == 3 and k == 0 and not tie:  # a change of mind the day after: the later vote counts
                rows.append([*row[:5], "model_a" if winner == "model_b" else "model_b", name, at + 86400])
                truth.plant("changed_minds", {"comparison_id": draft.id, "annotator": name})
            if number % 14 == 8 and k == 0 and not tie:  # two clicks in the same second that contradict each other
                rows.append([*row[:5], "model_a" if winner == "model_b" else "model_b", name, at])
                truth.plant("self_contradictions", {"comparison_id": draft.id, "annotator": name})
    unreadable = []
    for position, what in ((20, "unknown winner"), (75, "no winner"), (140, "blank response"), (200, "blank prompt")):
        row = list(rows[position])
        row[7] = ""
        row[{"unknown winner": 5, "no winner": 5, "blank response": 3, "blank prompt": 2}[what]] = (
            "model_c" if what == "unknown winner" else ""
        )
        rows.insert(position, row)
    for number, row in enumerate(rows, 1):
        if row[5] in ("model_c", ""):
            unreadable.append({"line": number, "kind": "unknown winner" if row[5] else "no winner"})
        if not row[3]:
            truth.plant("blank", {"file": "studio.csv", "line": number, "reason": "blank_response"})
        if not row[2]:
            truth.plant("blank", {"file": "studio.csv", "line": number, "reason": "blank_prompt"})
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["question_id", "category", "prompt", "response_a", "response_b", "winner", "annotator", "tstamp"])
    writer.writerows(rows)
    truth.files["studio.csv"] = {"format": "ab", "records": len(rows), "unreadable": unreadable}
    truth.plants["annotators"] = ANNOTATORS
    truth.plants["studio_better"] = merit
    return out.getvalue().encode()


def judged(deck: Deck, truth: Truth, rng: Random) -> tuple[bytes, list[Draft]]:
    """A/B table of whole conversations by two judge models; some comparisons shown in both orders."""
    rows: list[tuple[str | None, bytes]] = []
    drafts = [deck.draft(["units"]) for _ in range(34)]
    drafts += [deck.draft(PLAIN, turns=2 if i % 6 == 0 else 1) for i in range(44)]
    rng.shuffle(drafts)
    for number, draft in enumerate(drafts):
        tie = number % 11 == 7
        if tie:
            truth.plant("ties", draft.id)
        for judge, reliability in JUDGES.items():
            right = by_merit(draft, reliability, rng)
            swapped = rng.random() < 0.5
            both = number % 9 == 4 and judge == "judge-large"
            if both:
                truth.plant("both_orders", draft.id)
            for order in (swapped, not swapped) if both else (swapped,):
                first, second = (draft.rejected, draft.chosen) if order else (draft.chosen, draft.rejected)
                record = {
                    "question_id": f"j{number:03d}", "model_a": "sable-2", "model_b": "sable-1",
                    "winner": "tie" if tie else "model_b" if right == order else "model_a", "judge": judge,
                    "conversation_a": [*draft.prompt, {"role": "assistant", "content": first}],
                    "conversation_b": [*draft.prompt, {"role": "assistant", "content": second}],
                    "turn": len(draft.prompt) // 2 + 1, "category": draft.question.category, "language": "English",
                    "tstamp": NOON + 1000 * number,
                }  # fmt: skip
                rows.append((None, line(record)))
    scatter(rows, [b for b in broken_lines(record, "winner") if b[0] != "lone surrogate"], rng)
    return jsonl(truth, "judged.jsonl", "ab", rows), drafts


def transcripts(deck: Deck, truth: Truth, rng: Random) -> tuple[bytes, list[Draft]]:
    """HH-style transcripts, gzipped; one in four has an earlier turn."""
    drafts = [deck.draft(PLAIN, turns=2 if i % 4 == 0 else 1) for i in range(88)]
    rows: list[tuple[str | None, bytes]] = []

    def record(draft: Draft) -> dict[str, str]:
        turns = "".join(f"\n\n{'Human' if m['role'] == 'user' else 'Assistant'}: {m['content']}" for m in draft.prompt)
        return {
            "chosen": f"{turns}\n\nAssistant: {draft.chosen}",
            "rejected": f"{turns}\n\nAssistant: {draft.rejected}",
        }

    for number, draft in enumerate(drafts):
        rows.append((None, line(record(draft))))
        if number % 11 == 6:  # the same record again in the same file
            rows.append((None, line(record(draft))))
            truth.plant("repeated_in_file", draft.id)
    scatter(rows, broken_lines(record(drafts[0]), "chosen"), rng)
    return jsonl(truth, "transcripts.jsonl.gz", "hh", rows), drafts


def chats(deck: Deck, truth: Truth, rng: Random, told: list[Draft]) -> bytes:
    """TRL conversational pairs: the flipped slice, the language slice, repeats of other files, contradictions."""
    drafts = [deck.draft(["units"]) for _ in range(56)]
    drafts += [deck.draft(["german"]) for _ in range(16)] + [deck.draft(["spanish"]) for _ in range(16)]
    drafts += [deck.draft(PLAIN, turns=2 if i % 5 == 0 else 1) for i in range(50)]
    again = [draft for i, draft in enumerate(told) if i % 7 == 2]
    for draft in again:
        truth.plant("repeated_across_files", draft.id)
    rng.shuffle(drafts)
    wordy = [draft for draft in drafts if draft.words >= 60 and draft.question.language == "en"][:24]
    copies = []
    for draft in wordy:
        copy = nearly(draft, rng)
        copies.append(copy)
        truth.plant("near_duplicates", [draft.id, copy.id])
    rows: list[tuple[str | None, bytes]] = []

    def record(draft: Draft, chosen: object, rejected: object) -> dict[str, Any]:
        return {
            "prompt": draft.prompt,
            "chosen": [{"role": "assistant", "content": chosen}],
            "rejected": [{"role": "assistant", "content": rejected}],
            "category": draft.question.category,
        }

    everything = drafts + again + copies
    rng.shuffle(everything)
    for draft in everything:
        rows.append((None, line(record(draft, draft.chosen, draft.rejected))))
    contradicted = [d for d in drafts if d not in wordy and d.question.category != "units"][:10]
    for draft in contradicted:  # the same pair once more, the other way round
        rows.append((None, line(record(draft, draft.rejected, draft.chosen))))
        truth.plant("contradictory", draft.id)
    for reason, chosen in (("blank_response", ""), ("blank_response", " \n "), ("response_not_text", True)):
        draft = deck.draft(PLAIN)
        rows.insert(40, (None, line(record(draft, chosen, draft.rejected))))
        truth.plant("blank", {"prompt": draft.prompt[-1]["content"], "file": "chats.jsonl", "reason": reason})
    scatter(rows, broken_lines(record(drafts[0], drafts[0].chosen, drafts[0].rejected), "chosen"), rng)
    return jsonl(truth, "chats.jsonl", "trl", rows)


def forum(deck: Deck, truth: Truth, rng: Random) -> bytes:
    """TRL plain pairs of equal merit in which the longer response wins by habit; then pairs too alike to teach."""
    rows: list[tuple[str | None, bytes]] = []
    longer_wins = 0
    for number in range(170):
        question = deck.question(PLAIN)
        form = answer_first if number % 2 else rambling
        short, long = ((0, 2), (0, 1), (1, 2))[number % 3]
        low, high = sorted((form(question, short, rng), form(question, long, rng)), key=len)
        habit = rng.random() < LONGER_WINS
        longer_wins += habit and len(high) > len(low)
        chosen, rejected = (high, low) if habit else (low, high)
        prompt = deck.prompt(question)[0]["content"]
        record = {"prompt": prompt, "chosen": chosen, "rejected": rejected, "category": question.category}
        rows.append((None, line(record)))
    truth.plants["length_biased"] = {"source": "forum", "comparisons": 170, "longer_wins": longer_wins}
    for number in range(30):
        draft = deck.draft(PLAIN)
        text = rambling(draft.question, 1, rng) if number % 2 else answer_first(draft.question, 2, rng)
        other = text if number >= 25 else alike(text, rng)
        copy = Draft(draft.question, draft.prompt, text, other)
        truth.plant("identical" if other == text else "too_alike", copy.id)
        record = {"prompt": draft.prompt[0]["content"], "chosen": text, "rejected": other,
                  "category": draft.question.category}  # fmt: skip
        rows.insert(rng.randrange(len(rows)), (None, line(record)))
    scatter(rows, broken_lines(record, "chosen"), rng)
    return jsonl(truth, "forum.jsonl", "trl", rows)


def thumbs(deck: Deck, truth: Truth, rng: Random) -> bytes:
    """KTO rows: most thumbs stand alone, some prompts have one up and one down."""
    rows: list[tuple[str | None, bytes]] = []
    for number in range(270):
        draft = deck.draft(PLAIN)
        prompt = draft.prompt[0]["content"]
        up = {"prompt": prompt, "completion": draft.better, "label": True}
        down = {"prompt": prompt, "completion": draft.worse, "label": False}
        if number % 12 == 0:
            rows += [(None, line(up)), (None, line(down))]
            truth.plant("opposite_thumbs", draft.id)
        else:
            rows.append((None, line(up if rng.random() < 0.6 else down)))
            truth.plants["lone_thumbs"] = truth.plants.get("lone_thumbs", 0) + 1
    rng.shuffle(rows)
    scatter(rows, broken_lines(up, "completion"), rng)
    return jsonl(truth, "thumbs.jsonl", "kto", rows)


ASPECTS = ("instruction_following", "honesty", "truthfulness", "helpfulness")


def rated(deck: Deck, truth: Truth, rng: Random) -> bytes:
    """Several responses with ratings a prompt, as strings, some "N/A"; the critique's own score is not to be used."""
    records = []
    for number in range(34):
        question = deck.question(PLAIN)
        completions = []
        for k in range(rng.choice((2, 2, 3))):
            good = k == 0
            text = (answer_first if good else rambling)(question, rng.randrange(3), rng)
            score = (4 if number % 8 else 3) if good else 3 if number % 8 == 0 and k == 1 else k
            ratings = [str(score)] * 4
            if rng.random() < 0.3:
                ratings[rng.randrange(4)] = "N/A"
            completions.append({
                "model": f"house-{k}", "response": text, "overall_score": 10.0 if not good else float(score),
                "annotations": {a: {"Rating": r, "Rationale": "by the guide"} for a, r in zip(ASPECTS, ratings, strict=True)},
            })  # fmt: skip
        if number == 20:
            for aspect in completions[-1]["annotations"].values():
                aspect["Rating"] = "N/A"
            truth.plant("unrated", {"file": "rated.json", "line": number + 1, "responses": 1})
        records.append({
            "source": "house", "instruction": deck.prompt(question)[0]["content"], "category": question.category,
            "models": [c["model"] for c in completions], "completions": completions,
        })  # fmt: skip
        if number % 8 == 0:
            truth.plant("equal_ratings", {"file": "rated.json", "line": number + 1})
    truth.files["rated.json"] = {"format": "ratings", "records": len(records), "unreadable": []}
    return (json.dumps(records, ensure_ascii=False, indent=1) + "\n").encode()


def triples(deck: Deck, truth: Truth, rng: Random, told: list[Draft]) -> bytes:
    """PandaLM-like: two responses, three annotators (0 tie, 1, 2); some comparisons again in swapped order."""
    drafts = [deck.draft(PLAIN) for _ in range(50)]
    shared = [draft for i, draft in enumerate(told) if i % 9 == 5 and len(draft.prompt) == 1 and not draft.flipped]
    for draft in shared:
        truth.plant("repeated_across_files", draft.id)
    records = []
    for number, draft in enumerate(drafts + shared):
        swapped = rng.random() < 0.5
        votes = [0 if number % 10 == 3 else 1 + (by_merit(draft, 0.9, rng) == swapped) for _ in range(3)]
        if number % 10 == 3:
            truth.plant("ties" if number < 50 else "mixed_ties", draft.id)
        first, second = (draft.rejected, draft.chosen) if swapped else (draft.chosen, draft.rejected)
        record = {"idx": number, "instruction": draft.prompt[0]["content"], "input": "", "response1": first,
                  "response2": second, "annotator1": votes[0], "annotator2": votes[1], "annotator3": votes[2]}  # fmt: skip
        records.append(record)
        if number % 12 == 1:
            flip = {0: 0, 1: 2, 2: 1}
            records.append({**record, "idx": 1000 + number, "response1": second, "response2": first,
                            **{f"annotator{k + 1}": flip[v] for k, v in enumerate(votes)}})  # fmt: skip
            truth.plant("swapped", draft.id)
    records[30]["response1"] = True
    truth.plant("blank", {"file": "triples.json", "line": 31, "reason": "response_not_text"})
    truth.files["triples.json"] = {"format": "pandalm", "records": len(records), "unreadable": []}
    return (json.dumps(records, ensure_ascii=False, indent=1) + "\n").encode()


def make() -> dict[str, bytes]:
    """Every file of the sample by name, uncompressed, and truth.json."""
    rng, truth = Random(SEED), Truth()
    deck = Deck(rng)
    files = {"studio.csv": studio(deck, truth, rng)}
    files["judged.jsonl"], judged_drafts = judged(deck, truth, rng)
    files["transcripts.jsonl.gz"], told = transcripts(deck, truth, rng)
    files["chats.jsonl"] = chats(deck, truth, rng, told)
    files["forum.jsonl"] = forum(deck, truth, rng)
    files["thumbs.jsonl"] = thumbs(deck, truth, rng)
    files["rated.json"] = rated(deck, truth, rng)
    files["triples.json"] = triples(deck, truth, rng, judged_drafts)
    truth.plants["flipped_slice"] = {"column": "category", "value": "units"}
    truth.plants["judges"] = JUDGES
    total = {"records": sum(f["records"] for f in truth.files.values())}
    report = {"seed": SEED, "total": total, "files": truth.files, "plants": truth.plants}
    files["truth.json"] = (json.dumps(report, ensure_ascii=False, indent=1, sort_keys=True) + "\n").encode()
    return files


def write(folder: Path) -> None:
    """Write the files, those named .gz compressed without a time stamp."""
    for name, content in make().items():
        data = gzip.compress(content, mtime=0) if name.endswith(".gz") else content
        (folder / name).write_bytes(data)
        print(f"{name}: {len(data):,} bytes")


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent)
