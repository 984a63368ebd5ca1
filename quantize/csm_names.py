"""How the two publishers of CSM-1B name its tensors."""

from collections.abc import Mapping
from dataclasses import dataclass

from quantize.checkpoint import Checkpoint


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """The names of one layout."""

    title: str
    text: str
    audio: tuple[str, ...]
    """The table of the backbone, then that of the depth decoder; where one is missing, the other is both."""
    codebook0_head: str
    depth_heads: str
    projection: str
    backbone: str
    backbone_norm: str
    depth: str
    depth_norm: str
    layer: Mapping[str, str]
    """From the fields of ``Layer``."""
    rotate_half: bool

    def marks(self) -> tuple[str, ...]:
        """Names that only this layout has."""
        query = self.layer["attn_q"]
        fixed = (self.text, self.codebook0_head, self.depth_heads, self.projection)
        return *fixed, f"{self.backbone}.0.{query}", f"{self.depth}.0.{query}"


ORIGINAL = Layout(
    title="Sesame's layout",
    text="text_embeddings.weight",
    audio=("audio_embeddings.weight",),
    codebook0_head="codebook0_head.weight",
    depth_heads="audio_head",
    projection="projection.weight",
    backbone="backbone.layers",
    backbone_norm="backbone.norm.scale",
    depth="decoder.layers",
    depth_norm="decoder.norm.scale",
    layer={
        "attn_norm": "sa_norm.scale",
        "attn_q": "attn.q_proj.weight",
        "attn_k": "attn.k_proj.weight",
        "attn_v": "attn.v_proj.weight",
        "attn_output": "attn.output_proj.weight",
        "ffn_norm": "mlp_norm.scale",
        "ffn_gate": "mlp.w1.weight",
        "ffn_up": "mlp.w3.weight",
        "ffn_down": "mlp.w2.weight",
    },
    rotate_half=False,
)
"""Source: SesameAILabs/csm models.py (revision 2d72082); torchtune 0.4.0."""
TRANSFORMERS = Layout(
    title="transformers' layout",
    text="embed_text_tokens.weight",
    audio=("backbone_model.embed_tokens.embed_audio_tokens.weight", "depth_decoder.model.embed_tokens.weight"),
    codebook0_head="lm_head.weight",
    depth_heads="depth_decoder.codebooks_head.weight",
    projection="depth_decoder.model.inputs_embeds_projector.weight",
    backbone="backbone_model.layers",
    backbone_norm="backbone_model.norm.weight",
    depth="depth_decoder.model.layers",
    depth_norm="depth_decoder.model.norm.weight",
    layer={
        "attn_norm": "input_layernorm.weight",
        "attn_q": "self_attn.q_proj.weight",
        "attn_k": "self_attn.k_proj.weight",
        "attn_v": "self_attn.v_proj.weight",
        "attn_output": "self_attn.o_proj.weight",
        "ffn_norm": "post_attention_layernorm.weight",
        "ffn_gate": "mlp.gate_proj.weight",
        "ffn_up": "mlp.up_proj.weight",
        "ffn_down": "mlp.down_proj.weight",
    },
    rotate_half=True,
)
"""Source: transformers 5.23.0, models/csm/modeling_csm.py."""


def layout_of(checkpoint: Checkpoint) -> Layout:
    """The layout that more of the names are of."""
    return max((TRANSFORMERS, ORIGINAL), key=lambda layout: num_marks(checkpoint, layout))


def num_marks(checkpoint: Checkpoint, layout: Layout) -> int:
    """How many names are there that only this layout has."""
    return sum(name in checkpoint for name in layout.marks())
