"""A policy of about a thousand adapter weights, planted pairs in slices, and a plain DPO loop with the ledger in it.

The loop is what the trainer's is, without files: windows, accumulation, clipping, warm-up, AdamW.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dpo_train.attribution.path_integral import Attributed, attribute, refine, weights_at
from dpo_train.attribution.update_ledger import Interval, UpdateLedger

VOCABULARY, WIDTH, LENGTH = 16, 12, 6


class Adapted(nn.Module):
    """A frozen linear map with a low-rank adapter beside it, as peft makes them."""

    def __init__(self, width: int, rank: int, generator: torch.Generator) -> None:
        super().__init__()
        self.base = nn.Linear(width, width, bias=False)
        self.lora_a, self.lora_b = nn.Linear(width, rank, bias=False), nn.Linear(rank, width, bias=False)
        for part in (self.base, self.lora_a):
            nn.init.normal_(part.weight, 0, 0.4, generator=generator)
        nn.init.zeros_(self.lora_b.weight)
        self.base.requires_grad_(False)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.base(hidden) + 2 * self.lora_b(self.lora_a(hidden))


class Network(nn.Module):
    """Two adapted layers over the running mean of embeddings."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.embedding = nn.Embedding(VOCABULARY, WIDTH)
        nn.init.normal_(self.embedding.weight, 0, 1, generator=generator)
        self.layers = nn.ModuleList(Adapted(WIDTH, 4, generator) for _ in range(2))
        self.embedding.requires_grad_(False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Sum of the log-probabilities of tokens[:, 2:] (rows,): two prompt tokens, then the response."""
        hidden = self.embedding(tokens)
        count = torch.arange(1, tokens.shape[1] + 1, dtype=hidden.dtype)[None, :, None]
        hidden = hidden.cumsum(1) / count
        for layer in self.layers:
            hidden = hidden + torch.tanh(layer(hidden))
        logps = F.log_softmax(hidden[:, 1:-1] @ self.embedding.weight.T / WIDTH**0.5, dim=-1)
        return logps.gather(2, tokens[:, 2:, None]).squeeze(2).sum(1)


@dataclass
class Pairs:
    """Token ids (pairs, LENGTH) of both sides, weights, and the slice of each pair; prompts open both sides alike."""

    chosen: Tensor
    rejected: Tensor
    weights: Tensor
    slices: list[str]

    def __len__(self) -> int:
        return len(self.chosen)


def planted(count: int, seed: int = 0, slices: tuple[str, ...] = ("a", "b", "flipped")) -> Pairs:
    """The better answer holds low tokens; in slice "flipped" the votes are turned."""
    generator = np.random.default_rng(seed)
    better = generator.integers(0, VOCABULARY // 2, size=(count, LENGTH))
    worse = generator.integers(VOCABULARY // 2, VOCABULARY, size=(count, LENGTH))
    prompt = generator.integers(0, VOCABULARY, size=(count, 2))
    better[:, :2] = worse[:, :2] = prompt
    names = [slices[i % len(slices)] for i in range(count)]
    turned = np.array([name == "flipped" for name in names])[:, None]
    chosen, rejected = np.where(turned, worse, better), np.where(turned, better, worse)
    return Pairs(torch.from_numpy(chosen), torch.from_numpy(rejected), torch.ones(count), names)


def kinds(each: int, seed: int, made: dict[str, tuple[int, float]]) -> Pairs:
    """`each` pairs of every kind; a kind is (how the better answer's tokens are told, share of votes turned round).

    A better answer holds the tokens whose bit number `told` is 0, and prompts open with a token of the bit's own: two
    kinds with the same bit are twins.
    """
    generator = np.random.default_rng(seed)
    chosen, rejected, names = [], [], []
    for name, (told, turned) in made.items():
        tokens = np.arange(VOCABULARY)
        good, bad = (tokens[(tokens >> told) % 2 == bit] for bit in (0, 1))
        sides = [generator.choice(part, size=(each, LENGTH)) for part in (good, bad)]
        prompt = np.stack([np.full(each, told), generator.integers(0, VOCABULARY, each)], 1)
        sides[0][:, :2] = sides[1][:, :2] = prompt
        flip = (np.arange(each) < round(turned * each))[:, None]
        chosen.append(np.where(flip, sides[1], sides[0]))
        rejected.append(np.where(flip, sides[0], sides[1]))
        names += [name] * each
    return Pairs(torch.from_numpy(np.concatenate(chosen)), torch.from_numpy(np.concatenate(rejected)),
                 torch.ones(len(names)), names)  # fmt: skip


@dataclass
class Trained:
    network: Network
    intervals: list[Interval] = field(default_factory=list)
    ledger: UpdateLedger | None = None


def train(
    pairs: Pairs,
    buckets: list[str] | None = None,
    codes: Tensor | None = None,
    steps: int = 24,
    window: int = 12,
    accumulation: int = 2,
    rate: float = 5e-3,
    decay: float = 0.0,
    max_norm: float = 1e9,
    edges: tuple[int, ...] = (),
    dtype: torch.dtype = torch.float32,
    restart_at: int | None = None,
    seed: int = 0,
) -> Trained:
    """DPO on `pairs`; with `buckets` and `codes` (pairs,) the ledger listens. `restart_at`: stop and resume there.

    `seed` orders the batches.
    """
    network = Network().to(dtype)
    parameters = {name: value for name, value in network.named_parameters() if value.requires_grad}
    optimizer = torch.optim.AdamW(parameters.values(), lr=rate, weight_decay=decay)
    ledger = UpdateLedger(network, parameters, optimizer, buckets, max_norm) if buckets is not None else None
    done = Trained(network, ledger=ledger)
    with torch.no_grad():
        reference = network(pairs.chosen) - network(pairs.rejected)
    for step in range(steps):
        if ledger is not None and step == restart_at:
            kept = {name: value.clone() for name, value in ledger.state().items()}
            ledger.remove()
            ledger = UpdateLedger(network, parameters, optimizer, buckets or [], max_norm)
            ledger.resume(kept)
            done.ledger = ledger
        drawn = torch.from_numpy(np.random.default_rng(10_000 * seed + step).permutation(len(pairs))[:window])
        for part in drawn.chunk(accumulation):
            rows = torch.stack([pairs.chosen[part], pairs.rejected[part]], 1).flatten(0, 1)
            logps = network(rows).view(-1, 2)
            margin = 0.1 * (logps[:, 0] - logps[:, 1] - reference[part])
            (-(F.logsigmoid(margin) * pairs.weights[part].to(dtype)).sum() / len(drawn)).backward()
            if ledger is not None and codes is not None:
                ledger.book(codes[part].tolist(), [2 * LENGTH] * len(part))
        norm = torch.nn.utils.clip_grad_norm_(parameters.values(), max_norm)
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1.0, (step + 1) / 5)
        optimizer.step()
        if ledger is not None:
            ledger.step(float(norm))
        optimizer.zero_grad(set_to_none=True)
        if ledger is not None and (step + 1 in edges or step + 1 == steps):
            done.intervals.append(ledger.close())
    return done


def account(done: Trained, held_out: Pairs, refined: bool = False) -> Attributed:
    """All intervals' attribution of the held-out pairs, added up."""
    parameters = {name: value for name, value in done.network.named_parameters() if value.requires_grad}

    def score(index: int) -> tuple[Tensor, Tensor]:
        one = slice(index, index + 1)
        return done.network(held_out.chosen[one]).sum(), done.network(held_out.rejected[one]).sum()

    assert done.ledger is not None
    total: Any = None
    with done.ledger.silence():
        for interval in done.intervals:
            ends = []
            for weights in (interval.before, interval.after):
                with torch.no_grad(), weights_at(parameters, weights):
                    ends.append([[float(side) for side in score(index)] for index in range(len(held_out))])
            observed = np.array(ends[1]).T - np.array(ends[0]).T
            found = attribute(score, len(held_out), parameters, interval, observed)
            found = refine(found, score, parameters, interval) if refined else found
            total = found if total is None else total.add(found)
    return total
