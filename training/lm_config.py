"""[lm]: sizes of the language model and how it is trained."""

from typing import Annotated

from pydantic import Field, model_validator

from daemon.config_sections import Section
from training.ranges import Count, Share, Weight


class LmConfig(Section):
    """[lm]: the backbone, the depth decoder and their training."""

    width: Annotated[int, Field(ge=64, multiple_of=64)] = 256
    """Width of the backbone; a head is 64 wide."""
    layers: Count = 6
    """Layers of the backbone."""
    ffn: Annotated[int, Field(ge=8, multiple_of=8)] = 704
    """Inner width of the backbone's SwiGLU."""
    depth_width: Annotated[int, Field(ge=64, multiple_of=64)] = 192
    """Width of the depth decoder; a head is 64 wide."""
    depth_layers: Count = 3
    """Layers of the depth decoder."""
    depth_ffn: Annotated[int, Field(ge=8, multiple_of=8)] = 512
    """Inner width of the depth decoder's SwiGLU."""

    init: str = ""
    """Path of another language model's checkpoint to start from (its weights alone; a new speaker starts as the mean
    of those it has); empty: start from nothing."""
    seed: int = 1
    """Of the first weights and the order of the sentences."""
    steps: Count = 9000
    """Steps of the whole training."""
    positions: Annotated[int, Field(ge=64)] = 3840
    """Positions (characters and frames, padding included) of one batch of one process."""
    longest: Annotated[int, Field(ge=16, le=2048)] = 256
    """Sentences of more positions than this are left out of training."""
    rate: Annotated[float, Field(gt=0)] = 1.5e-3
    """Learning rate between warm-up and decay."""
    warmup: Count = 150
    """Steps of warm-up."""
    decay: Share = 0.4
    """Share of the steps, at the end, over which the rate falls to 3 %."""
    weight_decay: Weight = 0.05
    """On matrices and tables alone."""
    clip: Annotated[float, Field(gt=0)] = 1.0
    """Longest gradient, as the norm over all weights."""
    noise: Share = 0.08
    """Mean share of the codes at the input that are replaced at random; each sentence has its own, up to twice this."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """Share of each layer's outputs that is dropped."""
    depth_share: Annotated[float, Field(gt=0, le=1)] = 0.25
    """Share of the frames that train the depth decoder in a step."""
    guide_layer: Annotated[int, Field(ge=0)] = 3
    """Layer (from 0) whose first two heads are drawn to the character being said and to the one 2.5 further on."""
    guide_weight: Weight = 1.0
    """Of that loss, at the start; it falls to 5 % over the first 60 % of the steps."""
    guide_width: Annotated[float, Field(gt=0)] = 1.5
    """Standard deviation of the bump of attention that is asked for, characters."""
    phone_layer: Annotated[int, Field(ge=0)] = 3
    """After how many layers a character's position is asked which phones it says."""
    phone_weight: Weight = 0.3
    """Of the loss of naming the phones of characters and of frames."""
    evaluate_every: Count = 500
    """Steps between looks at the held-out sentences; progress is saved at the same steps."""
    compile: bool = True
    """Let torch.compile fuse the layers on a CPU (needs a C++ compiler; a sixth less time a step)."""

    @model_validator(mode="after")
    def _fits(self) -> "LmConfig":
        if self.positions < self.longest + 7:  # lengths are rounded up to a multiple of 8
            raise ValueError(f"positions {self.positions}: expected at least longest + 7 = {self.longest + 7}")
        if max(self.guide_layer + 1, self.phone_layer) > self.layers or self.phone_layer == 0:
            raise ValueError(f"guide_layer and phone_layer: expected layers of the {self.layers} there are")
        return self
