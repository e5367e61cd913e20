"""Prompts fall into topics that can be read, the same ones every time, and other prompts are carried to them."""

from collections import Counter

import numpy as np
import pyarrow as pa

from dpo_train.data.axes import label
from dpo_train.slices.topics import NO_TOPIC, TOPIC, assign, find, no_topics, with_topics

SUBJECTS = {
    "cooking": ["butter", "oven", "bake", "flour", "recipe", "simmer", "garlic", "onion", "pasta", "sauce"],
    "travel": ["flight", "hotel", "passport", "airport", "luggage", "museum", "ticket", "island", "ferry", "visa"],
    "code": ["python", "function", "loop", "compile", "variable", "string", "array", "debug", "class", "module"],
    "garden": ["plant", "soil", "seed", "water", "tomato", "pruning", "shade", "compost", "weeds", "harvest"],
}


def prompts(each: int, seed: int = 0) -> tuple[list[str], list[str]]:
    """(prompts, subjects): a common opening and four words of the subject."""
    generator = np.random.default_rng(seed)
    subjects = [name for name in SUBJECTS for _ in range(each)]
    texts = [
        f"Could you please tell me about {' '.join(generator.choice(SUBJECTS[name], 4, False))}?" for name in subjects
    ]
    return texts, subjects


def test_planted_subjects_are_found_and_named_by_their_own_words() -> None:
    texts, subjects = prompts(45)
    topics = find(texts)
    assert topics is not None and len(topics.names) == 4
    found = assign(topics, texts)
    for subject, words in SUBJECTS.items():
        (name, count), *_ = Counter(
            one for one, other in zip(found, subjects, strict=True) if other == subject
        ).most_common()
        assert count >= 43 and set(name.split(", ")) <= set(words)


def test_topics_do_not_depend_on_the_order_of_the_prompts_and_carry_to_others() -> None:
    texts, _ = prompts(45)
    topics, again = find(texts), find(texts[::-1] + texts[:20])
    assert topics is not None and again is not None and topics.names == again.names
    others, subjects = prompts(20, seed=1)
    found = dict(zip(others, assign(topics, others), strict=True))
    conversations = [[{"role": "user", "content": text}] for text in others]
    assert assign(topics, conversations) == list(found.values())  # as the shards hold them
    assert len({(subject, found[text]) for text, subject in zip(others, subjects, strict=True)}) <= 8
    assert assign(topics, ["", "xyzzy"]) == [NO_TOPIC, NO_TOPIC]


def test_topics_are_an_axis_of_the_report_where_there_are_prompts_enough() -> None:
    texts, _ = prompts(45)
    table = with_topics(pa.table({"pair_id": [str(k) for k in range(len(texts))], "prompt": texts}))
    columns = {TOPIC: np.array([*table[TOPIC].to_pylist(), None], dtype=object)[:-1]}
    assert len(label(columns)[TOPIC].levels) == 4 and no_topics(columns) == {}
    few = with_topics(table.slice(0, 40).select(["pair_id", "prompt"]))
    assert TOPIC not in few.column_names and "under 80 different prompts" in no_topics({})[TOPIC]
