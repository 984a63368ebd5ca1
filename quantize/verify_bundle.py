"""A bundle's stages, one by one, each fed with what the reference fed to its own."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from daemon.engine.bundle import Bundle, Role
from daemon.engine.codec_encoder import CodecEncoder
from daemon.engine.families.csm import CsmModel
from daemon.engine.llama import LlamaModel
from daemon.engine.onnx import OnnxModel
from daemon.engine.sampling import Sampler, Sampling
from daemon.engine.voices import Voice, VoicePrompt
from daemon.values import F32, I32, Array
from quantize.codec_check import decode_frames
from quantize.verify_truth import CONTEXT_TEXT, SPEAKER, TEXT, Truth

TABLES: tuple[Role, ...] = ("text_embeddings", "audio_embeddings", "depth_embeddings")
TIE = 1e-4
"""Logits this close, relative to all of them, are equal: it is what a float32 bundle's may be off."""
_GREEDY = Sampling(0.0, 1)


class BundleStages:
    """The parts of a bundle.

    Args:
        bundle: what is looked at.
        num_threads: of llama.cpp and onnxruntime.
    """

    def __init__(self, bundle: Bundle, *, num_threads: int = 1) -> None:
        self.bundle = bundle
        self._num_threads = num_threads
        audio = bundle.manifest.audio
        self.text, self.audio, self.depth = (
            np.load(bundle.path(role), mmap_mode="r", allow_pickle=False) for role in TABLES
        )
        self._offsets = np.arange(audio.num_codebooks) * (len(self.audio) // audio.num_codebooks)
        self._heads = OnnxModel(bundle.path("heads"), num_threads=num_threads)
        self._codec = OnnxModel(bundle.path("codec_decoder"), num_threads=num_threads)

    def frame_embeddings(self, codes: Array) -> F32:
        """Codes [T, Q] -> what the backbone reads, float32 [T, D]."""
        return np.asarray(self.audio[codes + self._offsets].astype(np.float32).sum(axis=1))

    def depth_embeddings(self, codes: Array) -> F32:
        """Codes [T, Q] -> what the depth decoder reads of all but the last codebook, float32 [T, Q - 1, Dd]."""
        return np.asarray(self.depth[codes[:, :-1] + self._offsets[:-1]], np.float32)

    def hidden_states(self, role: Role, sequences: Sequence[F32], prefill: int, *, exact: bool = True) -> F32:
        """Hidden states [n, N - prefill + 1, D] of sequences [n, N, D]; the first ``prefill`` positions are one batch.

        In a backbone they see each other as the bundle's text does.

        The batch gives only its last position's state. ``exact`` is with float32 KV and no flash attention; the engine
        runs only float32 bundles so.
        """
        states = []
        bidirectional = role == "backbone" and self.bundle.manifest.prompt.bidirectional
        length = len(sequences[0])
        with LlamaModel(
            self.bundle.path(role),
            num_positions=length,
            max_batch=prefill,
            num_threads=self._num_threads,
            exact=exact,
        ) as model:
            for inputs in sequences:
                model.rewind(0)
                read = model.prefill_bidirectional if bidirectional else model.prefill
                states.append(read(inputs[:prefill]).copy())
                states += [model.step(row).copy() for row in inputs[prefill:]]
        return np.array(states).reshape(len(sequences), -1, len(states[0]))

    def head(self, index: int, hidden: F32) -> tuple[F32, F32]:
        """Logits [V] and depth input [Dd] of one head; ``hidden`` is the backbone's for 0, else the depth decoder's."""
        widths = {name: shape[1] for name, (_, shape) in self._heads.inputs.items() if shape}
        feeds = {name: np.zeros((1, width), np.float32) for name, width in widths.items()}
        feeds["backbone_hidden" if index == 0 else "depth_hidden"][0] = hidden
        outputs = self._heads.run({**feeds, "index": np.array(index, np.int64)})
        return outputs["logits"][0], outputs["depth_input"][0]

    def depth_logits(self, hidden: F32) -> F32:
        """Hidden states [T, Q - 1, Dd] -> logits [T, Q - 1, V] of heads 1 to Q - 1."""
        return np.array([[self.head(1 + k, state)[0] for k, state in enumerate(frame)] for frame in hidden])

    def decode(self, codes: Array, group: int) -> F32:
        """Codes [T, Q] -> samples [S], ``group`` frames a call; the delay is dropped and the rest flushed."""
        settings = self.bundle.manifest.codec
        pcm, states = decode_frames(self._codec, codes.T[None].astype(np.int64), group)
        rest = states[settings.flush_state].reshape(-1) if settings.flush_state else pcm[0, :0]
        return np.concatenate([pcm[0], rest[: settings.delay_samples]])[settings.delay_samples :]

    def encode(self, audio: F32) -> Array:
        """Samples [S] -> codes [T, Q].

        Raises:
            ModelError: the bundle has no encoder.
        """
        return CodecEncoder(self.bundle, num_threads=self._num_threads).encode(audio)

    def speak(self, truth: Truth) -> tuple[list[list[int]], Array, int]:
        """The engine's token ids of both segments, its greedy codes [T, Q] after them, and how many ties there were.

        The context segment goes in as a voice's recording. Nothing limits or ends speech but the reference's length.
        """
        manifest = self.bundle.manifest
        limits = manifest.limits.model_copy(update={"min_ratio": 0.0, "slack_s": manifest.limits.max_utterance_s})
        unlimited = dataclasses.replace(self.bundle, manifest=manifest.model_copy(update={"limits": limits}))
        model = CsmModel(unlimited, num_threads=self._num_threads)
        choice = _Choice(truth.codes)
        model.frames.sampler = choice
        try:
            ids = [model.encode(text, SPEAKER) for text in (CONTEXT_TEXT, TEXT)]
            recording = VoicePrompt(CONTEXT_TEXT, truth.context_codes.astype(np.int32))
            model.begin(Voice("reference", "", "en", SPEAKER, recording), [])
            lane = model.start(TEXT, np.random.default_rng(0), _GREEDY, _GREEDY)
            frames: list[I32] = []
            while len(frames) < len(truth.codes):
                model.next_frames([lane])
                if lane.ended:
                    break
                frames.append(lane.codes.copy())
        finally:
            model.close()
        return ids, np.array(frames).reshape(-1, truth.codes.shape[1]), choice.ties


class _Choice(Sampler):
    """The likeliest code; of two that are as good as equally likely, the one that the reference chose.

    One code that differs makes another sentence of everything after it, and of 1600 choices among 2048 some come down
    to the last bits of a float32. So a difference counts where it is more than the logits themselves may be off.

    Attributes:
        ties: how often the reference's choice was taken.
    """

    def __init__(self, codes: Array) -> None:
        super().__init__(1)
        self._expected = iter(codes.ravel().tolist())
        self.ties = 0

    def sample(self, logits: F32, sampling: Sampling, rng: np.random.Generator) -> int:
        """One class of ``logits`` float32 [V]; called for every code in turn."""
        del sampling, rng
        expected, best = next(self._expected), int(logits.argmax())
        if best == expected or expected >= len(logits):
            return best
        size = np.sqrt(np.square(logits[np.isfinite(logits)]).mean())
        if logits[best] - logits[expected] > TIE * size:
            return best
        self.ties += 1
        return int(expected)
