"""Retrain: refresh, stop if nothing changed, train, report, and let the gate decide about promotion."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from dpo_data.store import versions
from flows.recipe import Recipe
from flows.refresh import RefreshSummary, refresh
from flows.steps import Step, plain
from flows.train import TrainSummary, train

if TYPE_CHECKING:
    from dpo_train.config import TrainConfig


class RetrainSummary(TypedDict):
    """Both halves, and what became of the champion."""

    refresh: RefreshSummary
    train: TrainSummary
    unchanged: bool
    promotion: dict[str, Any]


def retrain(recipe: Recipe, config: "TrainConfig", store: Path, step: Step = plain) -> RetrainSummary:
    """From raw files to a run that is compared with the champion; skipped where nothing changed."""
    refreshed = refresh(recipe, store, step)
    trained = train(config, refreshed["version"], store, step)
    promotion = step("decide about promotion", promote, store, trained["run"])
    return {
        "refresh": refreshed,
        "train": trained,
        "unchanged": not refreshed["became_current"] and not trained["created"],
        "promotion": promotion,
    }


def promote(store: Path, run: str) -> dict[str, Any]:
    """Compare a run with the champion on the held-out pairs both were measured on; point at the better one."""
    champion = versions.read_pointer(store).get("champion")
    if champion == run:
        return {"decision": "unchanged", "because": "this run is the champion already", "sentences": []}
    from dpo_train.promotion.gate import GateSettings, gate

    folder = store / "runs" / str(champion) if champion is not None else None
    decision = gate(folder, store / "runs" / run, GateSettings())
    if decision.decision == "promote":
        versions.set_champion(store, run)
    found: dict[str, Any] = {**decision.model_dump(mode="json"), "sentences": list(decision.sentences)}
    return found
