"""python -m quantize.reference_speed BUNDLE: how fast transformers' CSM makes frames of a bundle's shape here.

Its weights are random numbers: the time is that of the shape. What is measured is one more frame of its whole generate
loop (backbone, depth decoder, heads and sampling, without the codec), in float32 and bfloat16, with a growing and with
a fixed cache, as far as the memory allows. The last line is JSON; ``crier bench --peers`` runs this.

Source: transformers 5.23.0, models/csm/configuration_csm.py and generation_csm.py.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any, Literal

from daemon.engine.bundle import Bundle, load_bundle
from daemon.errors import ModelError, SpeechError

FEW, MANY = 2, 6
"""Frames of the two runs whose difference is measured."""
_PROMPT_TOKENS = 24
"""Of a short sentence."""
_TURNS = 2
_BLOCK = 1 << 20
_ROOM = 1.2
"""Memory that is wanted, as a multiple of the weights: what they are multiplied with, and the caches."""
_CACHES = ("dynamic", "static")
_DTYPES = {"bfloat16": 2, "float32": 4}
"""Bytes of a number; the smaller first, for it may be the only one that fits."""


def main() -> int:
    """Measure and print; the last line of stderr says why it cannot be done."""
    parser = argparse.ArgumentParser(prog="python -m quantize.reference_speed", description=__doc__.split("\n")[0])
    parser.add_argument("bundle", type=Path, help="folder of a bundle in CSM's shape")
    folder = parser.parse_args().bundle
    try:
        figures = measure(load_bundle(folder, verify="size"))
    except SpeechError as err:
        print(err, file=sys.stderr)
        return err.exit_code
    except ModuleNotFoundError as err:
        print(f"{err.name} is not installed: pip install -e '.[bench]'", file=sys.stderr)
        return 69
    print(json.dumps(figures))
    return 0


def measure(bundle: Bundle) -> dict[str, Any]:
    """The fastest of number formats and caches, and all that were tried.

    Raises:
        ModelError: the memory holds none of them.
    """
    from transformers import CsmForConditionalGeneration, initialization  # noqa: PLC0415 (of the extra)

    from quantize.verify_reference import quiet  # noqa: PLC0415 (likewise)

    tried: dict[str, float] = {}
    skipped: dict[str, str] = {}
    with quiet():
        config = shape(bundle)
        for dtype, num_bytes in _DTYPES.items():
            wanted, available = int(_ROOM * num_bytes * _num_weights(config)), available_bytes()
            if wanted > available:
                skipped[dtype] = f"wants {wanted / 1e9:.1f} GB of memory, {available / 1e9:.1f} are available"
                continue
            with initialization.no_init_weights():
                model = _filled(CsmForConditionalGeneration, config, dtype)
            tried |= {f"{dtype} {cache}": frame_s(model, cache) for cache in _CACHES}
            del model
    if not tried:
        raise ModelError("; ".join(f"{dtype} {reason}" for dtype, reason in skipped.items()))
    best = min(tried, key=lambda name: tried[name])
    return {
        "frame_s": round(tried[best], 4),
        "best": best,
        "frame_s_by_kind": {name: round(seconds, 4) for name, seconds in tried.items()},
        "skipped": skipped,
    }


def shape(bundle: Bundle) -> Any:
    """The configuration for transformers of the bundle's sizes, which its GGUF files tell."""
    from gguf import GGUFReader  # noqa: PLC0415 (of the extra)
    from transformers import CsmConfig  # noqa: PLC0415 (likewise)

    def sizes(role: Literal["backbone", "depth_decoder"]) -> dict[str, int]:
        fields = GGUFReader(bundle.path(role)).fields
        names = {
            "hidden_size": "embedding_length",
            "intermediate_size": "feed_forward_length",
            "num_hidden_layers": "block_count",
            "num_attention_heads": "attention.head_count",
            "num_key_value_heads": "attention.head_count_kv",
            "head_dim": "attention.key_length",
        }
        architecture = fields["general.architecture"].contents()
        return {ours: int(fields[f"{architecture}.{theirs}"].contents()) for ours, theirs in names.items()}

    audio, backbone = bundle.manifest.audio, sizes("backbone")
    codes = {"num_codebooks": audio.num_codebooks, "vocab_size": audio.codebook_size + 3}
    return CsmConfig(
        **backbone,
        **codes,
        codebook_pad_token_id=audio.codebook_size + 2,
        depth_decoder_config={
            **sizes("depth_decoder"),
            **codes,
            "backbone_hidden_size": backbone["hidden_size"],
            "max_position_embeddings": audio.num_codebooks + 1,
        },
    )


def frame_s(model: Any, cache: str) -> float:
    """Seconds of one more frame, the best of a few turns after a warm-up."""
    import torch  # noqa: PLC0415 (of the extra)

    prompt = torch.arange(1, _PROMPT_TOKENS + 1)[None]

    def generate(frames: int) -> float:
        began = time.perf_counter()
        model.generate(
            input_ids=prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=frames,
            min_new_tokens=frames,
            do_sample=True,
            depth_decoder_do_sample=True,
            **({"cache_implementation": cache} if cache == "static" else {}),
        )
        return time.perf_counter() - began

    generate(1)
    return min((generate(MANY) - generate(FEW)) / (MANY - FEW) for _ in range(_TURNS))


def available_bytes() -> int:
    """Memory that can be had without pushing anything out."""
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            return int(value.split()[0]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")


def _num_weights(config: Any) -> int:
    """Of the model without its codec."""

    def stack(part: Any) -> int:
        attention = 2 * part.hidden_size * part.head_dim * (part.num_attention_heads + part.num_key_value_heads)
        return int(part.num_hidden_layers * (attention + 3 * part.hidden_size * part.intermediate_size))

    depth = config.depth_decoder_config
    rows = config.text_vocab_size + (2 * config.num_codebooks + 1) * config.vocab_size
    heads = (config.num_codebooks - 1) * depth.hidden_size * config.vocab_size
    return int(stack(config) + stack(depth) + rows * config.hidden_size + heads)


def _filled(kind: Any, config: Any, dtype: str) -> Any:
    """A model whose every weight is some small number; which one does not change the time."""
    import torch  # noqa: PLC0415 (of the extra)

    usual = torch.get_default_dtype()
    torch.set_default_dtype(getattr(torch, dtype))
    try:
        model = kind(config).eval()
    finally:
        torch.set_default_dtype(usual)
    block = torch.empty(_BLOCK).uniform_(-0.03, 0.03)
    for parameter in model.parameters():
        for part in parameter.data.reshape(-1).split(_BLOCK):
            part.copy_(block[: len(part)])
    return model


if __name__ == "__main__":
    sys.exit(main())
