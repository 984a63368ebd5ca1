"""training/starter.toml -> frozen sections. Unknown keys, wrong types and ranges are refused with the key's name."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError, model_validator

from daemon.config import explain, read_toml
from daemon.config_sections import Section
from daemon.errors import ConfigError
from training.codec_config import CodecConfig
from training.evaluate_config import EvaluateConfig
from training.export_config import ExportConfig
from training.lm_config import LmConfig


class PathsConfig(Section):
    """[paths]: where things are made."""

    work: Annotated[str, Field(min_length=1)] = "build/starter"
    """Everything a stage leaves for the next one; 8 GB for the starter voice."""
    bundle: Annotated[str, Field(min_length=1)] = "models/starter"
    """The bundle in use: `--set export.install=q8_0` has `export` put one there, `evaluate` writes its model card."""


class CorpusConfig(Section):
    """[corpus]: how many utterances of each kind are spoken."""

    seed: int = 1
    max_characters: Annotated[int, Field(ge=20, le=300)] = 120
    """The longest text in training, hence the longest segment the voice is asked to say at once."""
    announcements: Annotated[int, Field(ge=0)] = 12_000
    """Fills of templates: doors, timers, trains, shopping lists, questions."""
    sentences: Annotated[int, Field(ge=0)] = 20_000
    """Examples of use out of WordNet."""
    definitions: Annotated[int, Field(ge=0)] = 6_000
    """Definitions out of WordNet."""
    docstrings: Annotated[int, Field(ge=0)] = 1_500
    """Sentences of the Python standard library's documentation."""
    vocabulary: Annotated[int, Field(ge=0)] = 14_000
    """The most frequent words; each is said `repeats` times at least, in random company."""
    repeats: Annotated[int, Field(ge=0)] = 2
    names: Annotated[int, Field(ge=0)] = 6_000
    """Proper names, in random company."""
    words: Annotated[int, Field(ge=0)] = 2_500
    """Words on their own."""
    spellings: Annotated[int, Field(ge=0)] = 1_500
    """Letters and digits one by one, acronyms, codes."""
    numbers: Annotated[int, Field(ge=0)] = 2_000
    """Numbers, money, units, times and dates on their own and in lists."""
    long: Annotated[int, Field(ge=0)] = 2_000
    """Two sentences in one breath."""
    short: Annotated[int, Field(ge=0)] = 6_000
    """Utterances of one or two frequent words, as statements, exclamations and questions: without them the prototype of
    this voice cut one-word questions short."""


class SpeakerConfig(Section):
    """[[speech.speakers]]: one voice, spoken by flite or recorded."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9_-]{1,32}$")]
    description: str
    language: str = "en"
    flite: str = ""
    """flite's name of the voice."""
    recordings: str = ""
    """Folder with metadata.csv (a line a recording: file|text) and the files it names."""
    repeats: Annotated[int, Field(ge=1, le=1000)] = 1
    """How often an epoch has each of the training utterances: more for a few recordings beside much other speech."""

    @model_validator(mode="after")
    def _one_source(self) -> "SpeakerConfig":
        if bool(self.flite) == bool(self.recordings):
            raise ValueError(f"speaker {self.name}: give either flite or recordings")
        return self


class SpeechConfig(Section):
    """[speech]: who speaks."""

    speakers: Annotated[tuple[SpeakerConfig, ...], Field(min_length=1, max_length=64)] = (
        SpeakerConfig(name="slt", description="American English, female", flite="slt"),
        SpeakerConfig(name="rms", description="American English, male", flite="rms"),
    )
    """In the order of their numbers in the prompt."""
    level_db: Annotated[float, Field(ge=-40, le=-10)] = -22.0
    """Loudness (RMS of what is not silent) that every utterance is brought to, dBFS."""
    margin_s: Annotated[float, Field(ge=0, le=1)] = 0.08
    """Silence kept before and after the speech."""

    @model_validator(mode="after")
    def _names_differ(self) -> "SpeechConfig":
        names = [speaker.name for speaker in self.speakers]
        if len(set(names)) < len(names):
            raise ValueError(f"speakers: expected another name for each, found {', '.join(names)}")
        return self

    @property
    def repeats(self) -> tuple[int, ...]:
        """Of every speaker."""
        return tuple(speaker.repeats for speaker in self.speakers)


class Config(Section):
    """The whole file."""

    paths: PathsConfig = PathsConfig()
    corpus: CorpusConfig = CorpusConfig()
    speech: SpeechConfig = SpeechConfig()
    codec: CodecConfig = CodecConfig()
    lm: LmConfig = LmConfig()
    export: ExportConfig = ExportConfig()
    evaluate: EvaluateConfig = EvaluateConfig()

    @model_validator(mode="after")
    def _default_voice_speaks(self) -> "Config":
        names = [speaker.name for speaker in self.speech.speakers]
        if self.export.default_voice not in ("", *names):
            raise ValueError(
                f"export.default_voice: expected one of {', '.join(names)}, found {self.export.default_voice}"
            )
        return self


def load(path: Path, overrides: dict[str, Any] | None = None) -> Config:
    """Read a configuration file; ``overrides`` maps "section.key" to a value that wins.

    Raises:
        ConfigError: the file is missing, not TOML, or a key is unknown, of the wrong type or out of range.
    """
    tree = read_toml(path)
    for name, value in (overrides or {}).items():
        *sections, key = name.split(".")
        table = tree
        for section in sections:
            table = table.setdefault(section, {})
            if not isinstance(table, dict):
                raise ConfigError(f"--set {name}: {section} is no table of the configuration")
        table[key] = value
    try:
        return Config.model_validate(_tuples(tree))
    except ValidationError as err:
        raise ConfigError(f"{path}: " + "; ".join(explain(err, Config))) from None


def _tuples(value: Any) -> Any:
    """TOML has lists only, and strict validation wants tuples where the fields are tuples."""
    if isinstance(value, dict):
        return {key: _tuples(item) for key, item in value.items()}
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value
