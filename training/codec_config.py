"""[codec]: sizes of the codec and how it is trained."""

from typing import Annotated

from pydantic import Field, model_validator

from daemon.config_sections import Section
from training.ranges import Count, Share, Weight


class AdversaryConfig(Section):
    """[codec.adversary]: the decoder's second training, against discriminators; encoder and codes stay as they are."""

    steps: Count = 4000
    """Steps of all processes together."""
    batch: Count = 8
    """Segments a step and process."""
    segment_frames: Annotated[int, Field(ge=2)] = 8
    """Frames of a segment that are judged."""
    context_frames: Annotated[int, Field(ge=0)] = 4
    """Frames before them that the decoder hears but nobody judges, as it is causal."""
    rate: Annotated[float, Field(gt=0)] = 3e-4
    """Highest learning rate, of decoder and discriminators."""
    warmup: Annotated[int, Field(ge=0)] = 50
    """Steps in which the rate and the adversary's say grow."""
    decay: Share = 0.6
    """Share of the steps in which the rate falls, at the end."""
    mel_weight: Weight = 8.0
    """Of the distance between log-mel spectra."""
    spectrum_weight: Weight = 1.0
    """Of the distance between spectra of several resolutions."""
    adversary_weight: Weight = 1.0
    """Of what the discriminators say."""
    feature_weight: Weight = 2.0
    """Of the distance between what the discriminators see in original and coded speech."""
    clip: Annotated[float, Field(gt=0)] = 5.0
    """Largest norm of the decoder's gradient."""
    checkpoint_every: Count = 250
    """Steps."""


class CodecConfig(Section):
    """[codec]: speech to codes and back, 12.5 frames of `keep_codebooks` codes a second."""

    init: str = ""
    """Work folder of another voice whose codec both trainings begin with; empty: with nothing."""
    num_codebooks: Annotated[int, Field(ge=1, le=32)] = 6
    """Trained; later ones refine earlier ones."""
    keep_codebooks: Annotated[int, Field(ge=1, le=32)] = 4
    """How many of them the voice uses: fewer are easier for the language model, more sound finer."""
    codebook_size: Annotated[int, Field(ge=2, le=32767)] = 1024
    """Entries of a codebook."""
    width_latent: Annotated[int, Field(ge=1)] = 96
    """Width of codebook entries."""
    width: Annotated[int, Field(ge=1)] = 256
    """Width of the decoder."""
    hidden: Annotated[int, Field(ge=1)] = 704
    """Inner width of the decoder's blocks."""
    frame_blocks: Annotated[int, Field(ge=1)] = 2
    """Decoder blocks at 12.5 Hz."""
    step_blocks: Annotated[int, Field(ge=1)] = 6
    """Decoder blocks at 100 Hz."""
    bandwidth_hz: Annotated[float, Field(ge=1000, le=12000)] = 7600.0
    """Nothing above is coded: flite's voices have nothing there. 12000 for recordings with all treble."""
    steps: Annotated[int, Field(ge=0)] = 8000
    """Steps of all processes together. 0, beside ``init``: encoder and codebooks stay as they are, and only the decoder
    goes on learning; that needs a voice much like those that the codec was trained on."""
    batch: Count = 10
    """Segments a step and process."""
    segment_frames: Annotated[int, Field(ge=2)] = 18
    """Frames of a segment."""
    rate: Annotated[float, Field(gt=0)] = 1.5e-3
    """Highest learning rate."""
    warmup: Annotated[int, Field(ge=0)] = 60
    """Steps in which the rate grows."""
    decay: Share = 0.6
    """Share of the steps in which the rate falls, at the end."""
    start_codebooks: Annotated[int, Field(ge=0)] = 150
    """Step at which the codebooks begin, as clusters of what the encoder has learned until then."""
    restart_every: Count = 20
    """Steps between looks for entries that are no longer chosen."""
    mel_weight: Weight = 2.0
    """Of the distance between log-mel spectra; spectra of several resolutions have 1."""
    commitment_weight: Weight = 0.5
    """Of the distance of the encoder's output to the chosen entries."""
    phone_weight: Weight = 0.2
    """Of naming the phones by the first code alone, so that it carries what is said."""
    clip: Annotated[float, Field(gt=0)] = 2.0
    """Largest norm of the gradient."""
    checkpoint_every: Count = 500
    """Steps."""
    compile: bool = True
    """Have torch.compile make C++ or GPU code of the networks: half a minute at the start, a fifth off every step."""
    adversary: AdversaryConfig = AdversaryConfig()

    @model_validator(mode="after")
    def _keeps_what_there_is(self) -> "CodecConfig":
        if self.keep_codebooks > self.num_codebooks:
            raise ValueError(f"keep_codebooks: expected at most num_codebooks ({self.num_codebooks})")
        if not (self.steps or self.init):
            raise ValueError("steps: expected 1 or more where init names no codec to take over")
        if self.steps and not self.init and self.start_codebooks >= self.steps:
            raise ValueError(
                f"steps: expected more than start_codebooks ({self.start_codebooks}): no code is used before"
            )
        return self
