"""Each alarm is raised by the evaluations it is meant for, names what was seen, and is silent about a sound run."""

import numpy as np
import pytest

from dpo_train.logs.metrics import Floats, PairMetrics, alarms, untrained

N = 60
BETA = 0.1
SPREAD = np.linspace(-1, 1, N)


def seen(chosen: Floats, rejected: Floats, tokens_chosen: Floats | None = None) -> PairMetrics:
    """An evaluation in which log-probabilities moved by so many nats from −100 each; 40 and 41 tokens by default."""
    level = np.full(N, -100.0)
    tokens = tokens_chosen if tokens_chosen is not None else 40 + SPREAD
    return PairMetrics(
        loss=np.logaddexp(0.0, -BETA * (chosen - rejected)),
        reward_chosen=BETA * chosen,
        reward_rejected=BETA * rejected,
        logp_chosen=level + chosen,
        logp_rejected=level + rejected,
        ref_chosen=level,
        ref_rejected=level,
        tokens_chosen=tokens,
        tokens_rejected=np.full(N, 40.0),
        weight=np.ones(N),
    )


NOISE = np.random.default_rng(0).normal(size=N)
START = seen(np.zeros(N), np.zeros(N))
SOUND = seen(1 + 0.1 * NOISE, -3 + 0.5 * NOISE)


def test_a_sound_run_raises_none() -> None:
    assert alarms(START, SOUND, train_margin=0.45) == []
    assert untrained(kept=4, steps=8) == []


@pytest.mark.parametrize(
    ("last", "says"),
    [
        (seen(0.1 * NOISE, -0.1 * NOISE), "Held-out margins are flat"),
        (seen(-1 + 0.01 * NOISE, -6 + NOISE), "Both answers became less likely (chosen -1.00, rejected -5."),
        (seen(3 + 0.1 * NOISE, -1 + 0.1 * NOISE), "Chosen answers moved by +0.07"),
        (seen(1 + 0.1 * NOISE, -60 + NOISE), "100% of the pairs no longer teach"),
        (
            seen(1 + 0.1 * NOISE, -3 - 3 * SPREAD, 40 + 30 * SPREAD),
            "the policy learns that the longer answer is better",
        ),
        (seen(1 + 0.1 * NOISE, -3 + 3 * SPREAD, 40 + 30 * SPREAD), "the policy learns that the shorter answer"),
    ],
)
def test_a_planted_fault_is_the_one_that_is_named(last: PairMetrics, says: str) -> None:
    found = alarms(START._replace(tokens_chosen=last.tokens_chosen), last)
    assert len(found) == 1, found
    assert says in found[0]


def test_margins_that_grow_on_training_pairs_alone_are_memory() -> None:
    (found,) = alarms(START, SOUND, train_margin=4.0)
    assert "Margins grew by 4.000 on training pairs but by 0.39" in found and "memorises" in found


def test_untrained_weights_that_are_kept_are_no_success() -> None:
    (found,) = untrained(kept=0, steps=8)
    assert "up to step 8" in found and "learning_rate" in found


def test_single_responses_are_warned_of_by_their_own_words() -> None:
    good = np.arange(N) < N // 2
    tokens = 40 + 10 * SPREAD
    start = seen(np.zeros(N), np.zeros(N))._replace(
        tokens_chosen=np.where(good, tokens, 0), tokens_rejected=np.where(good, 0, tokens)
    )
    moved = -2 + 0.5 * NOISE
    down = seen(np.where(good, moved, 0), np.where(good, 0, moved - 4))._replace(
        tokens_chosen=start.tokens_chosen, tokens_rejected=start.tokens_rejected
    )
    found = alarms(start, down)
    assert "Desirable answers became less likely (by " in found[0]
    assert not any("Both answers" in alarm for alarm in found)
    longer = seen(np.where(good, 10 * SPREAD + 11, 0), np.where(good, 0, 10 * SPREAD - 11))._replace(
        tokens_chosen=start.tokens_chosen, tokens_rejected=start.tokens_rejected
    )
    assert any("whatever their label: the policy learns that the longer answer" in one for one in alarms(start, longer))
