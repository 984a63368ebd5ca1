"""[export]: what a bundle says of itself, and how it is stored."""

from typing import Annotated, Literal

from pydantic import Field

from daemon.config_sections import Section

Recipe = Literal["f32", "f16", "q8_0", "q4_0", "q4_k"]
Temperature = Annotated[float, Field(ge=0, le=2)]


class ExportConfig(Section):
    """[export]: the bundles that are made of a trained voice."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]*$", max_length=64)] = "starter"
    """Of the bundles."""
    description: str = "English in two voices: small, for announcements; made by this project"
    licence: str = (
        "Apache-2.0; the speech it was trained on was made with flite's voices slt and rms (CMU, free licence)"
    )
    """Of the weights, and where the speech came from."""
    source: str = "trained from nothing by this project on speech of flite"
    default_voice: str = ""
    """A speaker's name; empty: the first."""
    recipes: Annotated[tuple[Recipe, ...], Field(min_length=1)] = ("f32", "q8_0", "q4_0")
    """How the bundles are stored; there is one for each."""
    install: Recipe | Literal[""] = ""
    """The one that is put where `[paths] bundle` says, in place of whatever bundle is there; empty: none."""
    temperature: Temperature = 0.0
    """Of codebook 0; 0 is greedy, which gave the prototype the fewest word errors."""
    depth_temperature: Temperature = 0.0
    """Of the other codebooks."""
