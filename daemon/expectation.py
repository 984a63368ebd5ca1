"""How fast a bundle will speak here, measured or reckoned from what its frames read from memory."""

from dataclasses import dataclass
from time import perf_counter

import numpy as np

from daemon.bandwidth import step_bytes_per_frame
from daemon.config_sections import EngineConfig
from daemon.engine.bundle import Bundle, Manifest, Role
from daemon.engine.codec import CodecDecoder
from daemon.engine.engine import Engine
from daemon.engine.sampling import Sampler, Sampling

SMALL_BYTES = 64 * 2**20
"""A bundle of less is loaded and measured."""
STEP_SHARE = 0.85
"""Of the memory's bandwidth, what llama.cpp's steps reach over a frame; 0.72 to 0.93 on CSM-1B's shape, as measured."""
HEADS_SHARE = 0.4
"""Likewise of onnxruntime's 8-bit products, on one thread."""
PROGRAM_BYTES = 150 * 10**6
"""The program and its libraries with nothing loaded."""
_STEPS: tuple[Role, ...] = ("backbone", "depth_decoder")
_PRODUCTS: tuple[Role, ...] = ("heads", "codec_decoder")
_ONNX_COPIES = 3
"""onnxruntime keeps the weights as they are in the file, and packs them in its own order."""
_CODEC_FRAMES = 8
_SAMPLES = 64


@dataclass(frozen=True, slots=True)
class Expectation:
    """What to expect of a bundle."""

    rtf: float
    """Seconds of synthesis for each of speech; below 1 keeps up."""
    how: str
    """``measured`` or ``estimated``."""

    @property
    def words(self) -> str:
        """For people: how much slower or faster than real time."""
        if self.rtf >= 1:
            text = f"about {self.rtf:.1f} x slower than real time here"
        else:
            factor = 1 / max(self.rtf, 1e-3)
            text = f"about {factor:.{1 if factor < 10 else 0}f} x faster than real time here"
        return f"{text} ({self.how})"


def needed_bytes(manifest: Manifest) -> int:
    """About what must stay in memory, or it comes from the disk with every frame; CSM-1B at q4_0 took 1.6 GB of 1.5."""
    steps, products = (sum(manifest.files[role].bytes for role in roles) for roles in (_STEPS, _PRODUCTS))
    return steps + _ONNX_COPIES * products + PROGRAM_BYTES


def measured(engine: Engine) -> Expectation:
    """Speak the self-test phrase.

    Raises:
        EngineError: a stage fails.
    """
    engine.self_test()
    return Expectation(engine.rtf, "measured")


def expect(bundle: Bundle, config: EngineConfig, bandwidth: float) -> Expectation:
    """A small bundle is measured; of another the codec and the sampling are, and its steps reckoned with ``bandwidth``.

    Args:
        bundle: intact.
        config: how it would be run.
        bandwidth: bytes a second, with as many threads as it would be run with.

    Raises:
        SpeechError: it cannot be loaded or run.
    """
    if sum(file.bytes for file in bundle.manifest.files.values()) < SMALL_BYTES:
        with Engine(config.model_copy(update={"bundle": str(bundle.folder), "verify": "size"})) as engine:
            return measured(engine)
    manifest = bundle.manifest
    frame_s = (
        step_bytes_per_frame(manifest) / (STEP_SHARE * bandwidth)
        + manifest.files["heads"].bytes / (HEADS_SHARE * bandwidth)
        + _codec_frame_s(bundle)
        + _sampling_frame_s(manifest)
    )
    return Expectation(frame_s * manifest.audio.frame_rate, "estimated")


def _codec_frame_s(bundle: Bundle) -> float:
    """Seconds that the codec takes for a frame, the median of a few."""
    codec = CodecDecoder(bundle)
    codes = np.zeros(bundle.manifest.audio.num_codebooks, np.int32)
    out = np.zeros(codec.samples_per_frame, np.int16)
    took = []
    for _ in range(_CODEC_FRAMES):
        began = perf_counter()
        codec.decode_frame(codes, out)
        took.append(perf_counter() - began)
    return float(np.median(took))


def _sampling_frame_s(manifest: Manifest) -> float:
    """Seconds that choosing a frame's codes takes."""
    rng = np.random.default_rng(0)
    logits = rng.standard_normal(manifest.audio.codebook_size, np.float32)
    sampler = Sampler(len(logits))
    table = manifest.sampling
    sampling = Sampling(table.depth_temperature, table.depth_top_k)
    began = perf_counter()
    for _ in range(_SAMPLES):
        sampler.sample(logits, sampling, rng)
    return (perf_counter() - began) / _SAMPLES * manifest.audio.num_codebooks
