"""What the backbone reads before a text: the voice's recording, then what was said before, as one KV cache."""

from collections import deque
from collections.abc import Sequence

from daemon.engine.backbone import Backbone
from daemon.engine.kv_files import KvFiles
from daemon.engine.prompt_segment import PromptSegment

_KEPT_SHARE = 0.5
"""Of the room for earlier speech, when it has become too long."""


class Prompt:
    """Keeps the backbone's KV cache filled with [voice][earlier segments], and says where the next text begins.

    The voice's part is computed once: rewinding to it costs nothing, other voices come back from files. Earlier
    segments stay within ``max_frames`` and within the context, whole segments leaving from the oldest. When some must
    leave in the middle of an utterance, half of the room is made at once, because what stays is computed anew.

    Args:
        backbone: owner of the KV cache.
        max_frames: the most frames of earlier speech; 0 for a model that was not trained for any.
        frames_per_token: how long a text is when it is said.
        files: where the states of voices are kept.

    Attributes:
        base: positions that the voice's part takes.

    Source: SesameAILabs/csm generator.py ``generate`` (revision 2d72082): the order of context and text.
    """

    def __init__(self, backbone: Backbone, *, max_frames: int, frames_per_token: float, files: KvFiles) -> None:
        self._backbone = backbone
        self._model = backbone.model
        self._max_frames = max_frames
        self._frames_per_token = frames_per_token
        self._files = files
        self._voice = ""
        self.base = 0
        self._earlier: deque[PromptSegment] = deque()
        self._mark = 0
        self._content = 0  # changes with the first ``_mark`` positions of sequence 0
        self._copied = [0] * len(self._model.positions)  # what the other sequences begin with
        self._stale = False

    @property
    def keeps(self) -> bool:
        """Whether earlier speech is of any use to the model."""
        return self._max_frames > 0

    def begin(self, voice: PromptSegment | None, conversation: Sequence[PromptSegment]) -> None:
        """Begin an utterance in a voice, after a conversation.

        Raises:
            EngineError: llama.cpp failed.
        """
        self._load_voice(voice)
        self._earlier = deque(conversation if self.keeps else ())
        self._stale = True

    def _load_voice(self, voice: PromptSegment | None) -> None:
        key = voice.digest() if voice else ""
        if key != self._voice:
            self._voice, self.base = "", 0  # in case of failure
            self._model.rewind(0)
            if voice is not None:
                self._files.restore(self._model, key, voice.num_positions, lambda: self._backbone.prefill(voice))
            self._voice, self.base = key, self._model.positions[0]

    def open(self, num_positions: int) -> None:
        """Make room for a text and its speech, ``num_positions`` in all; the text comes next.

        Raises:
            EngineError: llama.cpp failed.
        """
        room = self._model.num_positions - self.base - num_positions
        if not self._fits(room, self._max_frames):
            share = 1 if self._stale else _KEPT_SHARE
            while self._earlier and not self._fits(room * share, self._max_frames * share):
                self._earlier.popleft()
            self._stale = True
        self._content += 1
        if self._stale:
            self._model.rewind(self.base)
            for segment in self._earlier:
                self._backbone.prefill(segment)
            self._stale = False
        self._mark = self._model.positions[0]

    def _fits(self, positions: float, frames: float) -> bool:
        return (
            sum(segment.num_positions for segment in self._earlier) <= positions
            and sum(map(self._length, self._earlier)) <= frames
        )

    def _length(self, segment: PromptSegment) -> float:
        """Frames; of a turn of which there is only the text, as many as it would take to say."""
        return len(segment.tokens) * self._frames_per_token if segment.codes is None else len(segment.codes)

    def has_room(self, num_positions: int) -> bool:
        """Whether a text and its speech fit behind what ``open`` left in front of the last one."""
        return self._mark + num_positions <= self._model.num_positions

    def reopen(self, sequence: int = 0) -> None:
        """Make a sequence what sequence 0 was before the text that came after ``open``."""
        if sequence and self._mark and self._copied[sequence] != self._content:
            self._model.copy(0, sequence)
            self._copied[sequence] = self._content
        self._model.rewind(self._mark, sequence)

    def move(self, source: int, target: int) -> None:
        """Let a sequence go on as another one."""
        self._model.copy(source, target)
        self._copied[target] = self._copied[source] if source else self._content

    def close(self, spoken: Sequence[PromptSegment]) -> None:
        """The text since ``open`` has been spoken: keep it as earlier speech; without ``spoken`` forget it.

        Raises:
            EngineError: llama.cpp failed.
        """
        if spoken:
            self._earlier.extend(spoken)
            self._backbone.end_speech()
        else:
            self._model.rewind(self._mark)
