"""The one base of every settings class: frozen, and a name that does not exist is an error."""

from pydantic import BaseModel, ConfigDict


class Settings(BaseModel):
    """Settings of one room; composed once in `curate.CurationConfig` and recorded in every manifest."""

    model_config = ConfigDict(frozen=True, extra="forbid")
