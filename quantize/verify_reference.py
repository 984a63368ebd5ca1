"""The reference: transformers' CSM and Mimi in float32, asked stage by stage.

Imported only where a comparison is asked for, because torch and transformers are in the extra ``verify``.

Source: transformers 5.23.0, models/csm/modeling_csm.py and generation_csm.py, models/mimi/modeling_mimi.py.
"""

import contextlib
import json
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from tokenizers import Tokenizer
from torch import Tensor
from transformers import CsmForConditionalGeneration
from transformers.utils import logging as transformers_logging

from daemon.errors import ModelError
from quantize import verify_torchtune
from quantize.checkpoint_files import select_files
from quantize.progress import Progress
from quantize.verify_noise import ROUNDING, rounded
from quantize.verify_truth import CONTEXT_FRAMES, CONTEXT_TEXT, SPEAKER, TEXT, Storage, Truth, relative_error

_BEGIN, _END = "<|begin_of_text|>", "<|end_of_text|>"
_LOUDNESS = 0.1
"""Root mean square of what the encoder hears."""


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without transformers' own messages and bars; torch computes without gradients."""
    level, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity(logging.CRITICAL)
    transformers_logging.disable_progress_bar()
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.filterwarnings("ignore", module=r"transformers|huggingface_hub")
            yield
    finally:
        transformers_logging.set_verbosity(level)
        if bars:
            transformers_logging.enable_progress_bar()


def measure(
    source: Path, *, codec: Path | None, tokenizer: Path, storage: Storage, frames: int, progress: Progress
) -> Truth:
    """Load the reference from a checkpoint of either layout, and let it answer.

    Args:
        source: the checkpoint that the bundle was made of.
        codec: the codec's checkpoint, where it is not in ``source``.
        tokenizer: taken where ``source`` has none; its own ideas of special tokens are not used.
        storage: how the bundle is stored, for the disturbance.
        frames: how many frames are generated.
        progress: called before each step.

    Raises:
        ModelError: the checkpoint cannot be read as a CSM.
    """
    progress("reference", 0, 4)
    with quiet():
        model = load(source, codec)
        beside = (source if source.is_dir() else source.parent) / "tokenizer.json"
        return _Reference(model, beside if beside.is_file() else tokenizer).truth(storage, frames, progress)


def load(source: Path, codec: Path | None) -> CsmForConditionalGeneration:
    """The reference with the weights of a checkpoint.

    Raises:
        ModelError: the checkpoint cannot be read as a CSM.
    """
    files = select_files(source).files
    try:
        names = {name: file for file in files for name in _names(file)}
        if "backbone.norm.scale" in names:
            return verify_torchtune.load(files, codec).eval()
        with tempfile.TemporaryDirectory() as chosen:
            _link(names, Path(chosen))
            model, notes = CsmForConditionalGeneration.from_pretrained(
                chosen, dtype=torch.float32, local_files_only=True, output_loading_info=True
            )
    except (OSError, RuntimeError, ValueError, KeyError, SafetensorError) as err:
        raise ModelError(f"{source}: transformers cannot load it: {(str(err).splitlines() or ['?'])[0]}") from err
    if missing := [*sorted(notes["missing_keys"]), *map(str, notes["mismatched_keys"])]:
        raise ModelError(f"{source}: transformers misses tensor {missing[0]}, {len(missing)} in all")
    return model.eval()


def _link(file_of: dict[str, Path], folder: Path) -> None:
    """Put the files into a folder where transformers looks for no others: its own choice may be the other layout's."""
    for file in set(file_of.values()):
        (folder / file.name).symlink_to(file.resolve())
    for config in next(iter(file_of.values())).parent.glob("*config.json"):
        (folder / config.name).symlink_to(config.resolve())
    index = {"metadata": {}, "weight_map": {name: file.name for name, file in file_of.items()}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")


def _names(file: Path) -> list[str]:
    with safe_open(file, framework="pt") as tensors:
        return list(tensors.keys())


class _Reference:
    """The model with its tokenizer."""

    def __init__(self, model: Any, tokenizer: Path) -> None:
        self._model = model
        self._tokenizer = Tokenizer.from_file(str(tokenizer))

    def truth(self, storage: Storage, frames: int, progress: Progress) -> Truth:
        """Every stage for the prompt and the frames that follow it."""
        model = self._model
        context_ids, text_ids = self._encode(CONTEXT_TEXT), self._encode(TEXT)
        context = self._random_codes()
        end = torch.zeros_like(context[:1])
        prompt = torch.cat([self._text(context_ids), self._frames(torch.cat([context, end])), self._text(text_ids)])
        progress("reference", 1, 4)
        codes = self._generate(prompt, frames)
        if not len(codes):
            raise ModelError("the reference ends its speech at once: nothing to compare")
        progress("reference", 2, 4)
        inputs = torch.cat([prompt, self._frames(codes)])
        hidden = self._backbone(inputs)
        before = hidden[len(prompt) - 1 : -1]
        depth_inputs, depth_hidden, depth_logits = self._depth(before, codes)
        pcm = self._decode(codes)
        audio = pcm * (_LOUDNESS / pcm.square().mean().sqrt())
        progress("reference", 3, 4)
        disturbance = self._disturbances(storage, inputs, before, codes, audio)
        progress("reference", 4, 4)
        return Truth(
            context_ids=context_ids,
            context_codes=context.numpy(),
            text_ids=text_ids,
            codes=codes.numpy(),
            inputs=inputs.numpy(),
            hidden=hidden.numpy(),
            logits0=model.lm_head(before).numpy(),
            projected=model.depth_decoder.model.inputs_embeds_projector(before).numpy(),
            depth_inputs=depth_inputs.numpy(),
            depth_hidden=depth_hidden.numpy(),
            depth_logits=depth_logits.numpy(),
            pcm=pcm.numpy(),
            audio=audio.numpy(),
            audio_codes=self._listen(audio).numpy(),
            disturbance=disturbance,
        )

    def _disturbances(
        self, storage: Storage, inputs: Tensor, before: Tensor, codes: Tensor, audio: Tensor
    ) -> dict[str, float]:
        """What rounding does to every part, by name; 0 where the part is float32."""
        model = self._model
        codec = "half" if storage.half else "f32"
        parts: dict[str, tuple[str, Any, Callable[[], Tensor]]] = {
            "backbone": (storage.backbone, model.backbone_model.layers, lambda: self._backbone(inputs)),
            "depth_decoder": (
                storage.depth_decoder,
                model.depth_decoder.model.layers,
                lambda: self._depth(before, codes)[1],
            ),
            "codec": (codec, model.codec_model, lambda: self._decode(codes)),
            "codec codes": (codec, model.codec_model, lambda: self._listen(audio)),
        }
        return {name: _disturbance(*part) for name, part in parts.items()}

    def _encode(self, text: str) -> list[int]:
        """A segment's ids, with Llama 3's begin and end of text. Source: SesameAILabs/csm generator.py."""
        ids: list[int] = self._tokenizer.encode(f"[{SPEAKER}]{text}", add_special_tokens=False).ids
        begin, end = (self._tokenizer.token_to_id(token) for token in (_BEGIN, _END))
        if begin is None or end is None:
            raise ModelError(f"the tokenizer has no {_BEGIN} or no {_END}")
        return [begin, *ids, end]

    def _random_codes(self) -> Tensor:
        """[Tc, Q]."""
        config = self._model.config
        shape = (CONTEXT_FRAMES, config.num_codebooks)
        return torch.from_numpy(np.random.default_rng(0).integers(0, config.codec_config.codebook_size, shape))

    def _text(self, ids: list[int]) -> Tensor:
        """[n, D]."""
        return cast("Tensor", self._model.embed_text_tokens(torch.tensor(ids)))

    def _frames(self, codes: Tensor) -> Tensor:
        """[T, Q] -> [T, D]."""
        return cast("Tensor", self._model.backbone_model.embed_tokens(codes[None])[0])

    def _generate(self, prompt: Tensor, frames: int) -> Tensor:
        """[n, D] -> [T, Q], the likeliest code each time; T is less than ``frames`` where speech ends."""
        codes: Tensor = self._model.generate(
            inputs_embeds=prompt[None], do_sample=False, depth_decoder_do_sample=False, max_new_tokens=frames
        )[0]
        ends = (codes == 0).all(dim=-1).nonzero()
        return codes[: int(ends[0, 0])] if len(ends) else codes

    def _backbone(self, inputs: Tensor) -> Tensor:
        """[N, D] -> [N, D]."""
        return cast("Tensor", self._model.backbone_model(inputs_embeds=inputs[None]).last_hidden_state[0])

    def _depth(self, hidden: Tensor, codes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[T, D] and [T, Q] -> the depth decoder's inputs [T, Q, Dd], states [T, Q-1, Dd], logits [T, Q-1, V]."""
        decoder = self._model.depth_decoder
        ids = torch.nn.functional.pad(codes[:, :-1], (1, 0))  # position 0 is the hidden state's
        with _watched(decoder.model.inputs_embeds_projector) as inputs, _watched(decoder.model.norm) as states:
            logits = decoder(input_ids=ids, backbone_last_hidden_state=hidden).logits
        return inputs[-1], states[-1][:, 1:], logits

    def _decode(self, codes: Tensor) -> Tensor:
        """[T, Q] -> [S]."""
        return cast("Tensor", self._model.codec_model.decode(codes.T[None]).audio_values[0, 0])

    def _listen(self, audio: Tensor) -> Tensor:
        """[S] -> [T, Q]."""
        return cast("Tensor", self._model.codec_model.encode(audio[None, None]).audio_codes[0].T)


@contextlib.contextmanager
def _watched(module: torch.nn.Module) -> Iterator[list[Tensor]]:
    """What ``module`` gives within the block."""
    outputs: list[Tensor] = []
    hook = module.register_forward_hook(lambda _module, _inputs, output: outputs.append(output))
    try:
        yield outputs
    finally:
        hook.remove()


def _disturbance(kind: str, module: torch.nn.Module, run: Callable[[], Tensor]) -> float:
    """How far off ``run`` is when ``module`` rounds as storage of this kind does: relative, of codes the share."""
    if kind not in ROUNDING:
        return 0.0
    expected = run()
    with rounded(module, ROUNDING[kind], seed=0):
        found = run()
    if expected.is_floating_point():
        return relative_error(found.numpy(), expected.numpy())
    return float((found != expected).double().mean())
