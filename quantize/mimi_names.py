"""How the two publishers of Mimi name its tensors.

Source: transformers, models/mimi/convert_mimi_checkpoint_to_pytorch.py (moshi's names -> the flat names on disk) and
conversion_mapping.py of 5.23.0 (those -> the names in memory).
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """The parts of the names that differ."""

    seanet: str
    conv: str
    transposed: str
    downsample: str
    upsample: str
    transformer: str
    fused_qkv: bool
    """One tensor for q, k and v, of which q and k pair neighbours for rotation; else three that pair halves."""
    attn_output: str
    attn_scale: str
    norms: tuple[str, str]
    feed_forward: tuple[str, str]
    ffn_scale: str
    semantic: str
    acoustic: str
    books: str
    codebook: str
    embed_sum: str


TRANSFORMERS = Layout(
    seanet="layers",
    conv="conv",
    transposed="conv",
    downsample="downsample.conv",
    upsample="upsample.conv",
    transformer="layers",
    fused_qkv=False,
    attn_output="self_attn.o_proj.weight",
    attn_scale="self_attn_layer_scale.scale",
    norms=("input_layernorm", "post_attention_layernorm"),
    feed_forward=("mlp.fc1.weight", "mlp.fc2.weight"),
    ffn_scale="mlp_layer_scale.scale",
    semantic="quantizer.semantic_residual_vector_quantizer",
    acoustic="quantizer.acoustic_residual_vector_quantizer",
    books="layers",
    codebook="codebook",
    embed_sum="embed_sum",
)
"""kyutai/mimi, and within CSM's transformers checkpoint."""
MOSHI = Layout(
    seanet="model",
    conv="conv.conv",
    transposed="convtr.convtr",
    downsample="downsample.conv.conv.conv",
    upsample="upsample.convtr.convtr.convtr",
    transformer="transformer.layers",
    fused_qkv=True,
    attn_output="self_attn.out_proj.weight",
    attn_scale="layer_scale_1.scale",
    norms=("norm1", "norm2"),
    feed_forward=("linear1.weight", "linear2.weight"),
    ffn_scale="layer_scale_2.scale",
    semantic="quantizer.rvq_first",
    acoustic="quantizer.rvq_rest",
    books="vq.layers",
    codebook="_codebook",
    embed_sum="embedding_sum",
)
"""The tokenizer-*.safetensors of Moshi, which Sesame's generator takes."""
