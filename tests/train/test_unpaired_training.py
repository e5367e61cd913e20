"""Training on single responses, end to end: KTO against TRL 1.16's own code, and what a run on thumbs promises."""

import warnings
from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from helpers import tiny

from dpo_train.config import TrainConfig, TrainError
from dpo_train.data.encoded_pair import EncodedPair
from dpo_train.data.encoding import Encoder
from dpo_train.data.mismatched import partners
from dpo_train.data.pairs import open_pairs
from dpo_train.evaluation import evaluate
from dpo_train.gradients import add_gradient
from dpo_train.losses import Kto
from dpo_train.policy.load import wrap
from dpo_train.scoring import ReferencedPairs, Scoring, neutral_point, with_reference
from dpo_train.train import train

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from trl import KTOTrainer
    from trl.trainer.kto_trainer import DataCollatorForUnpairedPreference

ALONE = SimpleNamespace(
    process_index=0,
    is_main_process=True,
    num_processes=1,
    backward=torch.Tensor.backward,
    device=torch.device("cpu"),
    gather=staticmethod(lambda tensor: tensor),
    gather_for_metrics=staticmethod(lambda tensor: tensor),
)
KNOBS = {"loss_type": "kto", "beta": 0.3, "desirable_weight": 1.3, "undesirable_weight": 0.7}

settings = partial(
    tiny.settings, loss={"loss_type": "kto"}, per_device_train_batch_size=7, num_train_epochs=2, eval_steps=3
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(model folder, folder of a version with unpaired shards)"""
    root = tmp_path_factory.mktemp("store")
    return tiny.model_folder(root / "model"), tiny.unpaired_version(root)


@pytest.fixture
def drifted(place: tuple[Path, Path], tmp_path: Path) -> Iterator[tuple[Scoring, ReferencedPairs]]:
    """A float64 policy away from its reference, and training rows with theirs."""
    config = TrainConfig.model_validate({"use_cpu": True, "loss": KNOBS})
    policy = wrap(config, tiny.network(dtype=torch.float64), tiny.tokenizer(), {"model": "tiny"}, torch.device("cpu"))
    rows = open_pairs(place[1], "train", Encoder(tiny.tokenizer(), 400, "drop"), tmp_path / "cache", "unpaired")
    scoring = Scoring(config.loss, policy, 300, ALONE)
    known = with_reference(scoring, rows, np.arange(len(rows)), tmp_path / "cache")
    torch.manual_seed(5)
    with torch.no_grad():
        for parameter in policy.trainable().values():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    yield scoring, known
    torch.set_default_dtype(torch.float32)


class _UnbuiltKto(KTOTrainer):
    def __init__(self, model: Any) -> None:
        known = {
            "accelerator": ALONE,
            "model": model,
            "aux_loss_enabled": False,
            "precompute_ref_logps": True,
            "calculate_KL": True,
            "beta": 0.3,
            "desirable_weight": 1.3,
            "undesirable_weight": 0.7,
            "loss_type": "kto",
            "_metrics": {"train": defaultdict(list), "eval": defaultdict(list)},
            "_total_train_tokens": 0,
            "_tp_size": 1,
        }
        for name, value in known.items():
            object.__setattr__(self, name, value)


def _as_trl_scores(network: Any) -> Any:
    """The model as TRL patches it: token log-probabilities beside the labels, from the model's own logits."""

    def forward(input_ids: Any, attention_mask: Any, labels: Any, **_: Any) -> Any:
        logits = network(input_ids=input_ids, attention_mask=attention_mask).logits[:, :-1]
        targets = labels[:, 1:]
        picked = logits.log_softmax(-1).gather(2, targets.clamp(min=0)[:, :, None]).squeeze(2)
        nothing = torch.zeros_like(picked)
        return SimpleNamespace(
            log_probs=torch.where(targets == -100, 0.0, picked),
            entropy=nothing,
            mean_logits=nothing,
            is_top1=nothing.bool(),
        )

    forward.training = True  # type: ignore[attr-defined]
    return forward


def test_kto_with_its_drift_equals_trl_in_value_and_gradient(drifted: tuple[Scoring, ReferencedPairs]) -> None:
    """One window of all rows, whose borrowed responses TRL is given: its forward passes, its KL, its gradient."""
    scoring, known = drifted
    rows, every = known.pairs, np.arange(len(known.pairs))
    assert known.mismatched is not None and known.ref_mismatched is not None
    measured = add_gradient(scoring, known, every)
    parameters = scoring.policy.trainable()
    mine = {name: value.grad.clone() for name, value in parameters.items() if value.grad is not None}
    for value in parameters.values():
        value.grad = None
    examples = [
        {
            "prompt_ids": list(row.prompt),
            "completion_ids": [*row.chosen, *row.rejected],
            "KL_completion_ids": list(wrong.chosen),
            "label": bool(row.chosen),
            "ref_logps": float(known.reference.chosen[place] + known.reference.rejected[place]),
            "ref_KL_logps": float(known.ref_mismatched[place]),
        }
        for place, row, wrong in zip(every, rows.encoded(every), known.mismatched.encoded(every), strict=True)
    ]
    torch.set_default_dtype(torch.float64)
    batch = DataCollatorForUnpairedPreference(pad_token_id=257)(examples)
    scoring.policy.network.set_attn_implementation("sdpa")  # its own again, for rows of one response
    model = _as_trl_scores(scoring.policy.network)
    trainer = _UnbuiltKto(model)
    expected = trainer._compute_loss(model, batch, False)
    expected.backward()
    (kl,) = trainer._metrics["train"]["kl"]
    assert kl > 0.01  # not clamped away
    assert neutral_point(scoring, known, every) == pytest.approx(kl, rel=1e-10)
    assert measured.loss.mean() == pytest.approx(expected.item(), rel=1e-10)
    assert mine.keys() == {name for name, value in parameters.items() if value.grad is not None}
    for name, gradient in mine.items():
        torch.testing.assert_close(gradient, parameters[name].grad, rtol=1e-10, atol=1e-10)


def test_drift_and_loss_do_not_depend_on_the_forward_passes(drifted: tuple[Scoring, ReferencedPairs]) -> None:
    scoring, known = drifted
    some = np.array([3, 0, 11, 7, 5])
    whole, cut = (evaluate(Scoring(scoring.loss, scoring.policy, budget, ALONE), known, some) for budget in (9999, 1))
    np.testing.assert_allclose(whole.loss, cut.loss, rtol=1e-10)
    assert neutral_point(scoring, known, some) != pytest.approx(neutral_point(scoring, known, np.arange(20)))


def test_a_borrowed_response_answers_another_prompt_and_all_are_borrowed_once_where_prompts_differ() -> None:
    ids = [f"row {number}" for number in range(40)]
    assert sorted(partners(ids, ids)) == list(range(40))
    prompts = [str(number // 8) for number in range(40)]
    found = partners(ids, prompts)
    assert all(prompts[row] != prompts[other] for row, other in enumerate(found))
    assert partners([*ids, "new"], [*prompts, "other"])[:40].tolist().count(40) <= 8  # one joining changes few
    with pytest.raises(TrainError, match="apo_zero_unpaired"):
        partners(ids, ["one"] * 40)


def test_a_run_on_thumbs_moves_unseen_responses_the_way_their_labels_say(
    place: tuple[Path, Path], tmp_path: Path
) -> None:
    summary = train(settings(place[0]), place[1], tmp_path / "run")
    assert summary.pairs == {"validation": 13, "train": 25, "test": 9}
    held_out = summary.metrics["test"]
    assert held_out["rewards/margins"] > 0.02 and held_out["rewards/chosen"] > 0 > held_out["rewards/rejected"]
    assert any("reward in the direction of its label" in note for note in summary.notes)
    log = pq.read_table(tmp_path / "run" / "pair_log.parquet").to_pandas()
    start = log[(log["step"] == 0) & (log["split"] == "validation")]
    assert (start["margin"] == 0).all()
    rows = pq.read_table(tmp_path / "run" / "pairs.parquet").to_pandas().set_index("pair_id")
    assert set(rows["label"]) == {"desirable", "undesirable"}
    desirable = rows["label"][log["pair_id"]].to_numpy() == "desirable"
    assert ((log["tokens_chosen"] > 0) == desirable).all() and ((log["tokens_rejected"] > 0) == ~desirable).all()
    assert (rows["chosen"].str.len() > 0).eq(rows["label"] == "desirable").all()


def test_the_slice_report_of_thumbs_holds_desirable_and_undesirable_apart(
    place: tuple[Path, Path], tmp_path: Path
) -> None:
    from dpo_train.report import page

    train(settings(place[0], max_steps=3), place[1], tmp_path / "run")
    assert page.write(tmp_path / "run").exists()
    table = pq.read_table(tmp_path / "run" / "slices.parquet").to_pandas()
    held_out = table[table["split"] == "validation"]
    assert set(held_out[held_out["axis"] == "label"]["slice"]) == {"desirable", "undesirable"}
    assert "length gap" not in set(held_out["axis"])


@pytest.mark.parametrize("loss", [{"loss_type": "kto"}, {"loss_type": "bco_pair", "delta": "running_mean"}])
def test_resuming_with_a_neutral_point_equals_never_having_stopped(
    place: tuple[Path, Path], tmp_path: Path, loss: dict[str, Any]
) -> None:
    model, version = place
    if loss["loss_type"] == "bco_pair":
        version = tiny.version(tmp_path, train=14)
    config = settings(model, loss=loss, save_steps=2, max_steps=5)
    steps: list[int] = []

    def die(_: Any, places: Any) -> None:
        steps.extend(places)
        if len(steps) > 3 * 7:  # in the fourth step, after the checkpoint of the second
            raise ConnectionError

    train(config, version, tmp_path / "straight")
    with pytest.raises(ConnectionError):
        train(config, version, tmp_path / "broken", observe=die)
    train(config, version, tmp_path / "broken", resume=True)
    names = ("adapter/adapter_model.safetensors", "metrics.jsonl")
    for name in names:
        assert (tmp_path / "straight" / name).read_bytes() == (tmp_path / "broken" / name).read_bytes(), name


def test_a_running_mean_changes_what_bco_learns_from_its_second_step_on(
    place: tuple[Path, Path], tmp_path: Path
) -> None:
    version = tiny.version(tmp_path, train=14)
    losses = {}
    for delta in ("zero", "running_mean"):
        config = settings(place[0], loss={"loss_type": "bco_pair", "delta": delta}, max_steps=3, eval_steps=3)
        train(config, version, tmp_path / delta)
        log = [line for line in (tmp_path / delta / "metrics.jsonl").read_text().splitlines() if '"train"' in line]
        losses[delta] = [float(line.split('"loss": ')[1].split(",")[0]) for line in log]
    # step 2 has only step 1 behind it, taken where policy == reference: the mean is still 0
    assert losses["zero"][:2] == losses["running_mean"][:2]
    assert losses["zero"][2] != losses["running_mean"][2]


def test_a_version_without_the_shards_a_loss_trains_on_says_how_to_get_them(
    place: tuple[Path, Path], tmp_path: Path
) -> None:
    with pytest.raises(TrainError, match=r"no shards unpaired/train.*shards\.unpaired true"):
        train(settings(place[0]), tiny.version(tmp_path), tmp_path / "run")
    with pytest.raises(TrainError, match="no shards pairs/train"):
        train(settings(place[0], loss={"loss_type": "sigmoid"}), place[1], tmp_path / "run2")


def test_a_single_response_is_cut_or_left_out_by_the_rules_of_pairs() -> None:
    prompt, long = [{"role": "user", "content": "Hi?"}], [{"role": "assistant", "content": "yes " * 50}]
    short = [{"role": "assistant", "content": "no"}]
    for mode, reasons in (("drop", ["response_too_long", None]), ("keep_start", [None, None])):
        encoder = Encoder(tiny.tokenizer(), 80, mode)
        first, second = encoder.encode_single([prompt, prompt], [long, short], [True, False])
        assert [first.reason, second.reason] == reasons
        assert second.pair == EncodedPair(second.pair.prompt, (), second.pair.rejected) and second.end_rejected
    assert len(first.pair.prompt) + len(first.pair.chosen) == 80 and not first.end_chosen and first.cut_chosen > 0
    assert Kto().at_reference() == 0.5
