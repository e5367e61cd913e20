"""Questions of nine kinds, each with a right answer, a wrong answer and a reason.

Everything here was written for this project. A kind is a function from a seeded random generator to a `Question`.
Numbers, names and objects are drawn and answers are computed, so that hundreds of prompts differ in more than a number.
"""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

import facts


@dataclass(frozen=True)
class Question:
    """One prompt and what there is to say about it; `topic` is a noun phrase that fits after "about"."""

    category: str
    language: str
    prompt: str
    answer: str
    wrong: str
    because: str
    topic: str


ONES = facts.words(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen"
)
TENS = facts.words("- - twenty thirty forty fifty sixty seventy eighty ninety")


def in_words(number: int) -> str:
    """English words of a number below one hundred, digits above."""
    if number < 20:
        return ONES[number]
    if number < 100:
        return TENS[number // 10] + (f"-{ONES[number % 10]}" if number % 10 else "")
    return str(number)


def _english(category: str, prompt: str, answer: str, wrong: str, because: str, topic: str) -> Question:
    return Question(category, "en", prompt, answer, wrong, because, topic)


def arithmetic(rng: Random) -> Question:
    """Small sums told as stories, numbers in words."""
    name, other = rng.sample(facts.NAMES, 2)
    thing, box = rng.choice(facts.THINGS), rng.choice(facts.BOXES)
    a, b, c = rng.randint(3, 19), rng.randint(3, 12), rng.randint(2, 9)
    wa, wb, wc = in_words(a), in_words(b), in_words(c)
    off = rng.choice((-3, -2, 1, 2, 4, 10))
    stories = [
        (
            f"{name} puts {wa} {thing} into each of {wb} {box}. How many {thing} are packed?",
            a * b,
            f"{wb} {box} of {wa} give {a} × {b}",
        ),
        (
            f"There were {wa} {thing} on the shelf and {other} brought {wb} more. How many are there now?",
            a + b,
            f"{wa} and {wb} together are {a + b}",
        ),
        (
            f"{name} had {in_words(a + b)} {thing} and gave {wb} to {other}. How many does {name} still have?",
            a,
            f"{a + b} less {wb} leaves {a}",
        ),
        (
            f"{in_words(b * c).capitalize()} {thing} are shared evenly by {wc} friends. What does each one get?",
            b,
            f"{b * c} divided by {wc} is {b}",
        ),
        (
            f"A ticket costs {wa} coins. What do {name} and {other} pay for {wc} tickets altogether?",
            a * c,
            f"{wc} times {wa} coins is {a * c}",
        ),
        (
            f"On Monday {name} sold {wa} {thing}, on Tuesday {wb} and on Friday {wc}. How many in that week?",
            a + b + c,
            f"{a} + {b} + {c} comes to {a + b + c}",
        ),
        (
            f"Each row in the hall has {wa} chairs and {wc} rows are full. How many people are sitting?",
            a * c,
            f"{wc} rows of {wa} seats hold {a * c}",
        ),
        (
            f"{other} needs {in_words(a + c)} {thing} but found only {wc}. How many are missing?",
            a,
            f"from {wc} up to {a + c} it takes {a} more",
        ),
        (f"What is {wa} times {wb}, minus {wc}?", a * b - c, f"{a} × {b} is {a * b}, and {wc} less is {a * b - c}"),
        (
            f"Double {wa}, then add {wb}. What do you get?",
            2 * a + b,
            f"twice {wa} is {2 * a}, plus {wb} is {2 * a + b}",
        ),
        (
            f"{name} reads {wa} pages a day. How far has {name} come after {wc} days?",
            a * c,
            f"{wc} days at {wa} pages add up to {a * c}",
        ),
        (
            f"A bus leaves with {in_words(a + b)} passengers; {wb} get off and {wc} get on. How many ride along?",
            a + c,
            f"{a + b} − {b} + {c} is {a + c}",
        ),
    ]
    prompt, value, because = rng.choice(stories)
    return _english("arithmetic", prompt, str(value), str(value + off), because, f"numbers such as {wa}")


def units(rng: Random) -> Question:
    """Whole-number conversions from a larger unit to a smaller one."""
    large, small, factor = rng.choice(facts.UNITS)
    n = rng.randint(2, 40)
    prompt = rng.choice([
        f"Convert {n} {large} to {small}.",
        f"How many {small} are there in {n} {large}?",
        f"My note says {n} {large}. What is that in {small}?",
        f"Please change {n} {large} into {small}.",
        f"Unit conversion: {n} {large} expressed in {small}?",
        f"I measured {n} {large}; give me the figure in {small}.",
        f"If something takes up {n} {large}, how many {small} is that?",
    ])  # fmt: skip
    return _english(
        "units", prompt, f"{n * factor} {small}", f"{n * factor + rng.choice((-10, 5, 12, 100))} {small}",
        f"from {large} to {small} one multiplies by {factor}, here {n} × {factor}", f"{large} and {small}",
    )  # fmt: skip


def small_facts(rng: Random) -> Question:
    """One-word general knowledge."""
    table, prompts, because, topic = rng.choice(facts.FACTS)
    (key, value), (_, wrong) = rng.sample(sorted(table.items()), 2)
    wrong = wrong if wrong != value else f"not {value}"
    slots = {"key": key, "value": value}
    return _english("facts", rng.choice(prompts).format(**slots), value, wrong, because.format(**slots),
                    topic.format(**slots))  # fmt: skip


def rewriting(rng: Random) -> Question:
    """A sentence to put into another form, the result computed from its parts."""
    who, what, where = rng.choice(facts.NAMES + facts.PEOPLE), rng.choice(facts.OBJECTS), rng.choice(facts.PLACES)
    base, past, participle = rng.choice(facts.VERBS)
    third = (
        f"{base}es" if base.endswith(("sh", "ch", "x")) else f"{base[:-1]}ies" if base.endswith("ry") else f"{base}s"
    )
    tasks = [
        (f'Put into the past tense: "{who} {third} {what} {where}."', f'"{who} {past} {what} {where}."',
         f'"{third}" becomes "{past}"'),
        (f'Rewrite in the active voice: "{what.capitalize()} was {participle} by {who} {where}."',
         f'"{who[0].upper()}{who[1:]} {past} {what} {where}."', f"{who} is the one who acts, so {who} comes first"),
        (f'Make this polite: "{base.capitalize()} {what}!"', f'"Could you please {base} {what}?"',
         "a question with please sounds kinder than an order"),
        (f'Turn this into a question: "{who} will {base} {what} {where}."', f'"Will {who} {base} {what} {where}?"',
         '"will" moves to the front'),
        (f'Say the opposite: "{who} {past} {what} {where}."', f'"{who} did not {base} {what} {where}."',
         '"did not" takes the verb back to its plain form'),
        (f'Move it to tomorrow: "{who} {past} {what} {where}."', f'"{who} will {base} {what} {where} tomorrow."',
         f'the past "{past}" gives way to "will {base}"'),
    ]  # fmt: skip
    prompt, answer, because = rng.choice(tasks)
    return _english("rewriting", prompt, answer, f'"{who} {third} it."', because, f"sentences about {what}")


def lists(rng: Random) -> Question:
    """Name a few things of a kind."""
    kind, items, note = rng.choice(facts.KINDS)
    n = rng.choice((2, 3, 3, 4))
    chosen = rng.sample(items, n)
    prompt = rng.choice([
        "Name {n} {kind}.", "Give me {n} {kind} for a quiz.", "I need a list of {n} {kind}, please.",
        "Which {n} {kind} come to your mind?", "For a school poster: write down {n} {kind}.",
        "List {n} {kind}, nothing more.", "My daughter wants to draw {n} {kind}. Which ones?",
        "Can you think of {n} {kind} that start with different letters?",
    ]).format(n=in_words(n), kind=kind)  # fmt: skip
    if "different letters" in prompt and len({item[0] for item in chosen}) < n:
        return lists(rng)
    return _english("lists", prompt, ", ".join(chosen[:-1]) + f" and {chosen[-1]}", chosen[0], note, kind)


def _clock(minutes: int) -> str:
    return f"{minutes // 60}:{minutes % 60:02d}"


def planning(rng: Random) -> Question:
    """When to leave, when it is done, what comes first."""
    name = rng.choice(facts.NAMES)
    (job, jobs), (task, tasks) = rng.sample(facts.JOBS, 2)
    start = rng.randint(7 * 12, 18 * 12) * 5
    x, y = rng.randint(2, 15) * 5, rng.randint(2, 12) * 5
    before, after, why = rng.choice(facts.ORDERS)
    first, second = rng.sample((before, after), 2)
    plans = [
        (f"I start {jobs} at {_clock(start)}; it takes {x} minutes. When am I done?", _clock(start + x),
         _clock(start + x + 10), f"{_clock(start)} plus {x} minutes is {_clock(start + x)}", jobs),
        (f"{name} must be at the station at {_clock(start)} and walks {x} minutes. When is the latest time to leave?",
         _clock(start - x), _clock(start + x), f"the walk of {x} minutes comes off {_clock(start)}", "the walk"),
        (f"{job} takes {x} minutes and {tasks} {y} more. If I begin at {_clock(start)}, when is all of it finished?",
         _clock(start + x + y), _clock(start + x), f"{x} and {y} minutes are {x + y} in total", f"{jobs} and {tasks}"),
        (f"What should I do first: {first} or {second}?", before, after, why, "the order of chores"),
        (f"Planning the day: does it make sense to {first} before I {second}, or the other way round?",
         f"first {before}, then {after}", f"first {after}, then {before}", why, f"{after} at the right moment"),
        (f"The guests come at {_clock(start + 120)}. {task} needs {x} minutes. When do I have to begin at the latest?",
         _clock(start + 120 - x), _clock(start + 120), f"count {x} minutes back from {_clock(start + 120)}", tasks),
    ]  # fmt: skip
    prompt, answer, wrong, because, topic = rng.choice(plans)
    return _english("planning", prompt, answer, wrong, because, topic)


def explanations(rng: Random) -> Question:
    """Why something is so, in a sentence."""
    why, answer, because, topic = rng.choice(facts.WHYS)
    prompt = rng.choice([
        "Why is it that {why}?", "Say in one sentence why {why}.", "My son asks why {why}. What do I tell him?",
        "Explain briefly why {why}.", "Do you know the reason why {why}?",
    ]).format(why=why)  # fmt: skip
    return _english("explanations", prompt, answer, "nobody really knows", because, topic)


def words(rng: Random) -> Question:
    """Opposites, first letters, alphabetical order."""
    word, opposite = rng.choice(facts.OPPOSITES)
    three = rng.sample(facts.NOUNS, 3)
    first, last = min(three), max(three)
    tasks = [
        (f'What is the opposite of "{word}"?', opposite, f"un{word}", f"{word} and {opposite} exclude each other",
         f"the word {word}"),
        (f'I look for a word that means the contrary of "{word}". Which one?', opposite, f"non-{word}",
         f"whatever is {opposite} cannot be {word}", f"the word {word}"),
        (f"Which comes first in the dictionary: {three[0]}, {three[1]} or {three[2]}?", first, last,
         f"it begins with {first[:2]}, ahead of the others", f"{three[0]} and the alphabet"),
        (f"Sort by the alphabet and tell me the last one: {', '.join(three)}.", last, first,
         f"{last} stands behind {first} in any dictionary", f"{three[1]} and sorting"),
        (f'How many letters has the word "{three[0]}"?', str(len(three[0])), str(len(three[0]) + 2),
         f"{'-'.join(three[0])} can be counted on the fingers", f"the spelling of {three[0]}"),
        (f'Spell "{three[1]}" backwards.', three[1][::-1], three[1],
         f"its letters run from the {three[1][-1]} back to the {three[1][0]}", f"{three[1]} read from the end"),
    ]  # fmt: skip
    prompt, answer, wrong, because, topic = rng.choice(tasks)
    return _english("words", prompt, answer, wrong, because, topic)


KINDS: dict[str, Callable[[Random], Question]] = {
    "arithmetic": arithmetic, "units": units, "facts": small_facts, "rewriting": rewriting, "lists": lists,
    "planning": planning, "explanations": explanations, "words": words,
}  # fmt: skip
ENGLISH = list(KINDS)
