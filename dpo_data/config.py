"""Settings of the curation: the limits of every measure, and what to measure."""

from typing import Self

from pydantic import Field, PositiveInt, model_validator

from dpo_data.measures.contamination import ContaminationLimits
from dpo_data.measures.cycles import CycleLimits
from dpo_data.measures.duplicates import DuplicateLimits
from dpo_data.measures.length_bias import LengthLimits
from dpo_data.measures.lengths import SizeLimits
from dpo_data.measures.prompts import PromptLimits
from dpo_data.measures.similarity import SimilarityLimits
from dpo_data.measures.splits import SplitShares
from dpo_data.settings import Settings
from dpo_data.votes.agreement import AgreementLimits


class CurationConfig(Settings):
    """Every limit of every room, and what to measure. Recorded whole in each version's manifest."""

    slices: tuple[str, ...] = ()  # attribute keys that become columns of the ledger and of the pairs
    targets: dict[str, dict[str, PositiveInt]] = Field(default_factory=dict)  # kept pairs wanted: slice, value, pairs
    tokenizer: str | None = "smollm2-135m-instruct"  # of the model to be trained; null: no token counts
    # null: no embeddings; static:all-minilm-l6-v2: a lookup table, to group prompts in bulk (text/static_embeddings.py)
    embedding_model: str | None = "all-minilm-l6-v2"
    sizes: SizeLimits = SizeLimits()
    agreement: AgreementLimits = AgreementLimits()
    similarity: SimilarityLimits = SimilarityLimits()
    duplicates: DuplicateLimits = DuplicateLimits()
    prompts: PromptLimits = PromptLimits()
    contamination: ContaminationLimits = ContaminationLimits()
    cycles: CycleLimits = CycleLimits()
    length_bias: LengthLimits = LengthLimits()
    splits: SplitShares = SplitShares()

    @model_validator(mode="after")
    def _targets_are_of_slices(self) -> Self:
        known = ("source", "language", *self.slices)
        unknown = sorted(set(self.targets) - set(known))
        if unknown:
            raise ValueError(f"targets: no slice {', '.join(unknown)}; slices are {', '.join(known)}")
        return self
