"""The settings of a training run, under the names people know from TRL and transformers, and the trainer's error.

The loss owns its knobs (`loss: {loss_type: sigmoid, beta: 0.1}`); TRL's flat spelling (`beta: 0.1`) is taken too and
means the same. A name that does not exist is an error. Note: an optimizer step always holds
`per_device_train_batch_size · gradient_accumulation_steps` pairs per process; how they are cut into forward passes is
decided by `token_budget` alone and changes only speed and memory, and under `lora_dropout` which units drop.
"""

from __future__ import annotations

from datetime import date
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from dpo_train.losses import Loss, PairLoss, Sigmoid, losses_of

PACKAGED_MODEL = "smollm2-135m-instruct"
TEMPLATE_DATE = date(2024, 7, 26)  # what Llama 3.2's template writes where it has no clock


class TrainError(ValueError):
    """User-fixable error. The message states what was found, what was expected, where, and how to fix it."""


class AttributionSettings(BaseModel):
    """Which training slices moved the held-out margins (dpo_train/attribution); nothing is recorded without `by`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    by: str | None = None  # a column of the pairs
    pairs: int = Field(default=32, ge=1)  # held-out pairs, an equal number per value of `by`
    intervals: int = Field(default=4, ge=1)  # minimum number; each costs two backward passes per pair
    # Largest residual that an interval may leave in a held-out slice. Where margins move more, intervals end sooner (at
    # most one per evaluation), and one that still leaves more is evaluated at three points.
    max_closure_error: float = Field(default=0.01, gt=0)
    memory_gb: float = Field(default=2.0, gt=0)  # GiB; buckets are merged until they fit


class TrainConfig(BaseModel):
    """One run. Defaults are TRL 1.16's unless a comment says otherwise."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # what is trained: a packaged name, a Hub name, a folder, or a .gguf file
    model: str = PACKAGED_MODEL
    revision: str | None = None
    dtype: Literal["auto", "float64", "float32", "bfloat16"] = "auto"  # auto: float32 on a CPU, bfloat16 on a GPU
    use_cpu: bool = False
    use_peft: bool = True
    lora_r: int = Field(default=8, ge=1)  # r and alpha as Hu et al. 2021 (arXiv:2106.09685) on the query and value maps
    lora_alpha: int = Field(default=16, ge=1)
    lora_target_modules: tuple[str, ...] | str = ("q_proj", "v_proj")
    lora_dropout: float = Field(default=0.0, ge=0, lt=1)  # training steps only; the base model never drops
    use_rslora: bool = False
    use_dora: bool = False
    load_in_4bit: bool = False  # QLoRA (Dettmers et al. 2023, arXiv:2305.14314): frozen weights in NF4, by bitsandbytes
    gradient_checkpointing: bool = False  # saves memory for a third more time; TRL turns it on

    # the objective
    loss: Loss = Sigmoid()

    # how a pair becomes tokens
    max_length: int = Field(default=1024, ge=8)  # of prompt + response, each side
    truncation_mode: Literal["drop", "keep_start"] = "drop"  # TRL cuts; a cut edits the two sides unequally
    template_date: date = TEMPLATE_DATE  # what a chat template that asks for today's date writes, on any day

    # the optimiser
    learning_rate: float | None = Field(default=None, gt=0)
    num_train_epochs: float = Field(default=1.0, gt=0)  # TRL 3; margins of DPO turn within one (Rafailov, 2406.02900)
    max_steps: int = -1  # positive: overrides num_train_epochs
    per_device_train_batch_size: int = Field(default=8, ge=1)
    gradient_accumulation_steps: int = Field(default=1, ge=1)
    lr_scheduler_type: str = "linear"
    warmup_ratio: float = Field(default=0.1, ge=0, lt=1)  # alignment-handbook's DPO recipes
    weight_decay: float = Field(default=0.0, ge=0)
    adam_beta1: float = Field(default=0.9, ge=0, lt=1)
    adam_beta2: float = Field(default=0.999, ge=0, lt=1)
    adam_epsilon: float = Field(default=1e-8, gt=0)
    max_grad_norm: float = Field(default=1.0, gt=0)
    seed: int = 42

    # speed and memory only (run.py), and under lora_dropout which units drop
    token_budget: int | None = Field(default=None, ge=1)  # tokens of a forward pass; None: fit to the device
    fsdp: bool = False  # weights in shards over the processes, for a model that one device does not hold
    prefix_sharing: bool = True  # the prompt once for both responses, where the model allows it

    attribution: AttributionSettings = AttributionSettings()

    # watching, stopping, keeping
    eval_steps: int | None = Field(default=None, ge=1)  # None: ten evaluations a run
    save_steps: int | None = Field(default=None, ge=1)  # None: as eval_steps
    save_total_limit: int = Field(default=2, ge=1)
    probe_pairs: int = Field(default=256, ge=0)  # training pairs evaluated beside the validation pairs
    max_eval_pairs: int | None = Field(default=None, ge=1)  # a fixed sample of a large validation split
    stop_when_flat: bool = True
    load_best_model_at_end: bool = True  # by validation log-loss, one-standard-error rule; False keeps the last step
    report_to: tuple[Literal["tensorboard", "wandb", "mlflow", "trackio"], ...] = ("tensorboard",)

    @model_validator(mode="before")
    @classmethod
    def _take_flat_loss_knobs(cls, raw: Any) -> Any:
        """`beta: 0.1` beside the other settings, as TRL writes it, belongs to the loss."""
        if not isinstance(raw, dict):
            return raw
        flat = {name: value for name, value in raw.items() if name not in cls.model_fields and name in _LOSS_KNOBS}
        if not flat:
            return raw
        loss = raw.get("loss", {})
        if isinstance(loss, PairLoss):  # only what was said: a default is no second opinion
            loss = {**loss.model_dump(exclude_unset=True), "loss_type": loss.model_dump()["loss_type"]}
        twice = sorted(name for name in flat if name in loss and loss[name] != flat[name])
        if twice:
            raise ValueError(f"{', '.join(twice)} given twice, in loss and beside it: keep one")
        rest = {name: value for name, value in raw.items() if name not in flat}
        return {**rest, "loss": {"loss_type": "sigmoid", **loss, **flat}}

    @model_validator(mode="after")
    def _adapter_over_quantised_weights(self) -> Self:
        if self.load_in_4bit and not self.use_peft:
            raise ValueError("load_in_4bit holds weights that cannot learn: set use_peft to true")
        if self.load_in_4bit and self.fsdp:
            raise ValueError("weights packed into 4 bit cannot be cut into shards: set load_in_4bit or fsdp to false")
        return self

    @model_validator(mode="after")
    def _known_schedule(self) -> Self:
        if self.lr_scheduler_type not in SCHEDULES:
            raise ValueError(f"lr_scheduler_type {self.lr_scheduler_type!r}: expected one of {', '.join(SCHEDULES)}")
        return self

    @property
    def rate(self) -> float:
        """The peak learning rate: 1e-4 for adapters, 1e-6 for all weights, unless set.

        1e-6 is TRL's. Adapters want ten times and more of it (Biderman et al. 2024, arXiv:2405.09673, section 4);
        1e-4 suits the short runs on small sets that this project is made for.
        """
        if self.learning_rate is not None:
            return self.learning_rate
        return 1e-4 if self.use_peft else 1e-6

    @property
    def pairs_per_step(self) -> int:
        """Pairs of one optimiser step on one process."""
        return self.per_device_train_batch_size * self.gradient_accumulation_steps

    @property
    def beta(self) -> float:
        """The β that logged margins are scaled by; 1 for a loss without one."""
        first = self.loss.terms[0] if self.loss.loss_type == "mixture" else self.loss
        return float(getattr(first, "beta", 1.0))


# Schedules of transformers.get_scheduler that need no further setting.
SCHEDULES = ("linear", "cosine", "constant", "constant_with_warmup")
_LOSS_KNOBS = frozenset(name for member in losses_of(Loss) for name in member.model_fields)
