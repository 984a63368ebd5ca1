"""What every bundle of CSM's kind has in its manifest."""

from typing import Any

from daemon.values import SAMPLE_RATE
from quantize.mimi_weights import MimiCodec


def csm_manifest(
    codec: MimiCodec, *, about: dict[str, str], limits: dict[str, Any], voices: dict[str, str]
) -> dict[str, Any]:
    """All keys and tables but for ``files`` and the recipe.

    Args:
        codec: the bundle's.
        about: name, description, licence, source, revision.
        limits: how long a text may take.
        voices: description by name, in the order of CSM's speakers.

    Source: SesameAILabs/csm generator.py ``generate`` (revision 2d72082) for sampling and the prompt.
    """
    return about | {
        "family": "csm",
        "default_voice": next(iter(voices)),
        "audio": {
            "sample_rate": SAMPLE_RATE,
            "frame_rate": SAMPLE_RATE / codec.samples_per_frame,
            "num_codebooks": codec.num_codebooks,
            "codebook_size": codec.codebook_size,
        },
        "sampling": {"temperature": 0.9, "top_k": 50, "depth_temperature": 0.9, "depth_top_k": 50},
        "limits": limits,
        "stop": {"kind": "zero_frame"},
        "codec": {"delay_samples": 0},
        "prompt": {"template": "[{speaker}]{text}"},
        "voices": {
            name: {"description": description, "language": "en", "speaker": speaker}
            for speaker, (name, description) in enumerate(voices.items())
        },
    }
