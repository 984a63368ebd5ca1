"""CSM-1B checkpoints of both public layouts -> neutral weights.

Sesame's own has torchtune's names and rotates neighbouring pairs; transformers' renames and rotates halves. Layers and
tables are read when they are used.
"""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from daemon.errors import ModelError
from quantize import mimi
from quantize.checkpoint import Checkpoint
from quantize.csm_config import Config, StackConfig
from quantize.csm_manifest import csm_manifest
from quantize.csm_names import ORIGINAL, TRANSFORMERS, layout_of, num_marks
from quantize.csm_tokenizer import load_tokenizer
from quantize.mimi_weights import MimiCodec
from quantize.progress import Progress, no_progress
from quantize.weights import Layer, Lazy, SpeechModel, Transformer, layer_shapes

_INSIDE = "codec_model."
"""What the codec's names begin with inside a checkpoint in transformers' layout."""


def recognises(checkpoint: Checkpoint) -> bool:
    """Whether most of the names that only one of the layouts uses are there (a few may be missing by damage)."""
    layout = layout_of(checkpoint)
    return num_marks(checkpoint, layout) > len(layout.marks()) // 2


def read(
    checkpoint: Checkpoint,
    name: str,
    *,
    codec: Path | None,
    tokenizer: Path | None,
    progress: Progress = no_progress,
) -> SpeechModel:
    """Read the model; every shape is checked before anything large is read.

    Args:
        checkpoint: of either layout.
        name: the bundle's.
        codec: Mimi's checkpoint, where it is not inside ``checkpoint``.
        tokenizer: tokenizer.json, where it is not beside ``checkpoint``.
        progress: told how much of the checkpoint and of the codec has been hashed.

    Raises:
        ModelError: what is missing, misshapen, contradictory or damaged. Layers and tables that hold NaN raise it only
            when they are read.
    """
    reader = _Reader(checkpoint)
    tokenizer_json = load_tokenizer(
        _tokenizer_file(checkpoint, tokenizer),
        reader.text_rows,
        checkpoint.config.get("bos_token_id"),
    )
    source, prefix, config = _codec_source(checkpoint, codec)
    found = mimi.read(source, prefix, dict(config.values))
    sources = {"checkpoint": (checkpoint, Config.of(checkpoint))}
    if source is not checkpoint:
        sources["codec"] = (source, config)
    return reader.speech(name, found, tokenizer_json, _revision(sources, progress))


class _Reader:
    """Checks all shapes when it is made; reads in ``speech``.

    Raises:
        ModelError: a tensor is missing or misshapen, or config.json contradicts them.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._checkpoint = checkpoint
        self._layout = layout = layout_of(checkpoint)
        self._config = Config.of(checkpoint)
        self._depth_config = self._config.table("depth_decoder_config")
        if layout is TRANSFORMERS and not checkpoint.config:
            raise ModelError(f"{checkpoint.config_file}: missing or empty, but only it says how heads are split")
        self._depth_width, self._width = checkpoint.check(layout.projection, None, None)
        heads, _, self._num_classes = checkpoint.check(layout.depth_heads, None, self._depth_width, None)
        self._num_codebooks = heads + 1
        self.text_rows, _ = checkpoint.check(layout.text, None, self._width)
        self._tables = [table for table in layout.audio if table in checkpoint] or [layout.audio[0]]
        for table in self._tables:
            checkpoint.check(table, self._num_codebooks * self._num_classes, self._width)
        checkpoint.check(layout.codebook0_head, self._num_classes, self._width)
        self._agree()
        backbone, depth = self._constants()
        self._backbone = self._stack(layout.backbone, layout.backbone_norm, self._width, self._config, backbone)
        self._depth = self._stack(layout.depth, layout.depth_norm, self._depth_width, self._depth_config, depth)

    def _agree(self) -> None:
        """Compare config.json with the shapes of what is in neither transformer."""
        config, depth, layout = self._config, self._depth_config, self._layout
        heads_name = f"tensor {layout.depth_heads}"
        for key in ("num_codebooks", "audio_num_codebooks"):
            config.agree(key, heads_name, self._num_codebooks)
        for key in ("vocab_size", "audio_vocab_size"):
            config.agree(key, heads_name, self._num_classes)
        config.agree("text_vocab_size", f"tensor {layout.text}", self.text_rows)
        depth.agree("num_codebooks", heads_name, self._num_codebooks)
        depth.agree("vocab_size", heads_name, self._num_classes)
        depth.agree("backbone_hidden_size", f"tensor {layout.projection}", self._width)

    def _constants(self) -> tuple[StackConfig, StackConfig]:
        """What no shape tells of the backbone and of the depth decoder."""
        config = self._config
        if self._layout is ORIGINAL:
            return config.flavor("backbone_flavor", "llama-1B"), config.flavor("decoder_flavor", "llama-100M")
        depth = self._depth_config.stack(self._depth_width, heads=8, kv_heads=2)
        return config.stack(self._width, heads=32, kv_heads=8), depth

    def _stack(self, prefix: str, norm: str, width: int, config: Config, constants: StackConfig) -> Transformer:
        """One transformer, all of its shapes checked; its layers are read when they are asked for."""
        checkpoint = self._checkpoint
        names = {field: f"{prefix}.%d.{name}" for field, name in self._layout.layer.items()}
        query, key, gate = (names[field] % 0 for field in ("attn_q", "attn_k", "ffn_gate"))
        (q, _), (kv, _), (ffn, _) = (checkpoint.check(name, None, width) for name in (query, key, gate))
        heads = _num_heads(f"{config.where}num_attention_heads", constants.heads, constants.head_dim, query, q)
        kv_heads = _num_heads(f"{config.where}num_key_value_heads", constants.kv_heads, constants.head_dim, key, kv)
        shapes = layer_shapes(width, q, kv, ffn)
        count = checkpoint.count(prefix)
        for number in range(count):
            for field, shape in shapes.items():
                checkpoint.check(names[field] % number, *shape)
        config.agree("hidden_size", f"tensor {norm}", width)
        config.agree("intermediate_size", f"tensor {gate}", ffn)
        config.agree("num_hidden_layers", f"the tensors {prefix}.N", count)
        if heads % kv_heads:
            raise ModelError(f"tensor {key}: expected a number of heads that divides {heads}, found {kv_heads}")

        def layer(number: int) -> Layer:
            return Layer(**{field: checkpoint.tensor(names[field] % number, *shapes[field]) for field in shapes})

        return Transformer(
            layers=Lazy(count, layer),
            output_norm=checkpoint.tensor(norm, width),
            heads=heads,
            kv_heads=kv_heads,
            head_dim=constants.head_dim,
            ffn=ffn,
            norm_eps=constants.norm_eps,
            rope_base=constants.rope_base,
            rope_scaling=constants.rope_scaling,
            rotate_half=self._layout.rotate_half,
        )

    def speech(self, name: str, codec: MimiCodec, tokenizer: str, revision: str) -> SpeechModel:
        """Read the heads, and put the parts together.

        Raises:
            ModelError: the codec is of another size, or a head is damaged.
        """
        checkpoint, layout = self._checkpoint, self._layout
        if codec.num_codebooks != self._num_codebooks or codec.codebook_size > self._num_classes:
            raise ModelError(
                f"codec: expected {self._num_codebooks} codebooks of at most {self._num_classes} by tensor"
                f" {layout.depth_heads}, found {codec.num_codebooks} of {codec.codebook_size}",
            )
        heads = checkpoint.tensor(layout.depth_heads, None, None, None)
        about = {"name": name, "source": f"a checkpoint of CSM in {layout.title}", "revision": revision}
        return SpeechModel(
            backbone=self._backbone,
            depth_decoder=self._depth,
            codebook0_head=checkpoint.tensor(layout.codebook0_head, None, None),
            depth_heads=np.ascontiguousarray(heads.transpose(0, 2, 1)),
            projection=checkpoint.tensor(layout.projection, None, None),
            text_embeddings=checkpoint.rows(layout.text, None, None),
            audio_embeddings=checkpoint.rows(self._tables[0], None, None),
            depth_audio_embeddings=checkpoint.rows(self._tables[1], None, None) if self._tables[1:] else None,
            codec=codec,
            tokenizer=tokenizer,
            manifest=_manifest(codec, self._config.context(), about),
        )


def _num_heads(key: str, said: int | None, head_dim: int, tensor: str, rows: int) -> int:
    """How many heads a projection has; ``said`` by the configuration under ``key``."""
    heads = max(1, rows // head_dim) if said is None else said
    if heads * head_dim != rows:
        raise ModelError(
            f"{key} {heads} of head_dim {head_dim}: expected {heads * head_dim} rows in tensor {tensor}, found {rows}"
        )
    return heads


def _tokenizer_file(checkpoint: Checkpoint, given: Path | None) -> Path:
    path = checkpoint.config_file.parent if given is None else given
    try:
        if path.is_dir():
            path /= "tokenizer.json"
        path.stat()
    except FileNotFoundError as err:
        raise ModelError(
            f"{path}: no such file: the tokenizer.json of Llama 3.2 is needed, say where with --tokenizer"
        ) from err
    except OSError as err:
        raise ModelError(f"{path}: {err.strerror}") from err
    return path


def _codec_source(checkpoint: Checkpoint, given: Path | None) -> tuple[Checkpoint, str, Config]:
    """Where Mimi is, what its tensors' names begin with there, and its configuration."""
    source = checkpoint if given is None else Checkpoint(given)
    if mimi.recognises(source, _INSIDE):
        return source, _INSIDE, Config.of(source).table("codec_config")
    if given is None:
        lost = f" ({checkpoint.lost}, of a checkpoint that may have one, is missing)" if checkpoint.lost else ""
        raise ModelError(
            f"{checkpoint.config_file.parent}: holds no codec{lost}: give the checkpoint of Mimi (kyutai/mimi) with"
            " --codec"
        )
    if not mimi.recognises(source):
        raise ModelError(f"{given}: its tensor names are not those of Mimi")
    config = Config.of(source)
    # Another model's config.json may lie beside Moshi's file, which has none.
    return source, "", config if config.values.get("model_type") == "mimi" else Config({}, config.where)


def _revision(sources: dict[str, tuple[Checkpoint, Config]], progress: Progress) -> str:
    """What tells these from any others."""
    found = []
    for part, (source, config) in sources.items():
        content = source.revision(partial(progress, part))
        found.append(" ".join(filter(None, (part, source.hub_revision(), content, config.revision()))))
    return ", ".join(found).removeprefix("checkpoint ")


def _manifest(codec: MimiCodec, context: int, about: dict[str, str]) -> dict[str, Any]:
    """Source: SesameAILabs/csm generator.py ``generate`` (revision 2d72082) for the longest speech."""
    part = context / 2048  # what a shorter context leaves of everything that fills it
    voice = "a voice that the model makes up, another for each text unless a recording is added; speaker"
    return csm_manifest(
        codec,
        about=about
        | {
            "description": "CSM-1B: English conversation, several speakers",
            "licence": "Apache-2.0 (CSM-1B), CC-BY-4.0 (Mimi)",
        },
        limits={
            "context": context,
            "max_text_tokens": max(8, round(128 * part)),
            "seconds_per_token": 0.3,
            "min_ratio": 0.2,
            "max_ratio": 2.5,
            "slack_s": 2.0,
            "max_utterance_s": 90.0 * part,
            "context_s": 20.0 * part,
        },
        voices={f"speaker{number}": f"{voice} {number}" for number in (0, 1)},
    )
