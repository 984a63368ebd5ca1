"""config.json of a voice made by training/: what no tensor tells. training.export writes it, the converter reads it."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from daemon.engine.bundle import MAX_NAME, NAME, LimitsTable, SamplingTable
from daemon.errors import ModelError
from quantize.checkpoint import Checkpoint

_MAX_SPEAKERS = 100
"""As many as a manifest can number."""


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Speaker(_Table):
    """One voice; its place in the list is its number in the prompt."""

    name: Annotated[str, Field(pattern=NAME, max_length=MAX_NAME)]
    description: str
    language: str


class StarterConfig(_Table):
    """The whole file."""

    name: Annotated[str, Field(pattern=NAME, max_length=MAX_NAME)]
    description: str
    licence: str
    source: str
    alphabet: Annotated[str, Field(min_length=1, max_length=1000)]
    """One token a character, in the order of their ids; then BOS, EOT and the speakers."""
    bidirectional: bool
    default_voice: str
    speakers: Annotated[tuple[Speaker, ...], Field(min_length=1, max_length=_MAX_SPEAKERS)]
    sampling: SamplingTable
    limits: LimitsTable

    @model_validator(mode="after")
    def _consistent(self) -> "StarterConfig":
        names = [speaker.name for speaker in self.speakers]
        if len(set(names)) != len(names):
            raise ValueError(f"speakers: two have the same name, found {', '.join(names)}")
        if self.default_voice not in names:
            raise ValueError(f"default_voice: expected one of {', '.join(names)}, found {self.default_voice}")
        if len(set(self.alphabet)) != len(self.alphabet) or self.alphabet != self.alphabet.lower():
            raise ValueError(f"alphabet: expected small letters and marks, each once, found {self.alphabet!r}")
        if set("[]") & set(self.alphabet):  # they mark the speaker in a prompt
            raise ValueError(f"alphabet: expected no square brackets, found {self.alphabet!r}")
        return self


def read_config(checkpoint: Checkpoint) -> StarterConfig:
    """The configuration beside a checkpoint's tensors.

    Raises:
        ModelError: there is none, or a key is missing, unknown or out of range.
    """
    if not checkpoint.config:
        raise ModelError(
            f"{checkpoint.config_file}: expected the voice's name, speakers and limits, found no such file"
        )
    try:
        return StarterConfig.model_validate(checkpoint.config)
    except ValidationError as err:
        first = err.errors()[0]
        where = ": ".join([str(checkpoint.config_file), *filter(None, [".".join(map(str, first["loc"]))])])
        raise ModelError(f"{where}: {first['msg'].removeprefix('Value error, ')}") from err
