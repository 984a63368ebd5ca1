"""How long a text may take to say, measured on the speech a voice was trained on."""

import math
from collections.abc import Sequence

import numpy as np

from daemon.engine.bundle import LimitsTable
from daemon.errors import ModelError
from daemon.values import SAMPLE_RATE
from training.speech import FRAME_SAMPLES, Utterance
from training.text import encode

FRAME_RATE = SAMPLE_RATE / FRAME_SAMPLES
_ONE_IN = 0.001
"""Share of the utterances that may lie beyond each limit before its margin: a recording can be cut or mislabelled."""
_LONG_TOKENS = 40
"""From here on a pause at the ends no longer makes much of an utterance's length."""
_FASTER, _SLOWER, _LATER_S = 0.8, 1.2, 0.4
"""What the model is allowed beyond its teacher; the prototype's speech lasted 1.02 +- 0.05 of flite's."""
_BLOCK = 32
_MAX_UTTERANCE_S = 90.0


def measure(utterances: Sequence[Utterance]) -> LimitsTable:
    """The limits that all but one in a thousand of every speaker's utterances keep with room to spare.

    A text of n tokens is expected to last n x seconds_per_token. Speech may end after min_ratio of that at the
    earliest and goes on for max_ratio of it + slack_s at the longest.

    Raises:
        ModelError: there are no utterances.
    """
    if not utterances:
        raise ModelError("no utterances to measure the length of speech on, expected at least one")
    tokens = np.array([len(encode(item.text, item.speaker)) for item in utterances])
    seconds = np.array([item.num_frames for item in utterances]) / FRAME_RATE
    pace = round(float(seconds.sum() / tokens.sum()), 4)
    ratio = seconds / (tokens * pace)
    long = tokens >= min(_LONG_TOKENS, int(np.median(tokens)))
    # Every speaker's own: a few recordings of a slow one would be lost among many utterances of the others.
    speakers = np.array([item.speaker for item in utterances])
    own = [speakers == speaker for speaker in np.unique(speakers)]
    least = _FASTER * min(float(np.quantile(ratio[one], _ONE_IN)) for one in own)
    most = max([1.0] + [_SLOWER * float(np.quantile(ratio[one & long], 1 - _ONE_IN)) for one in own if any(one & long)])
    over = seconds - most * tokens * pace
    late = max([0.0] + [float(np.quantile(over[one], 1 - _ONE_IN)) for one in own]) + _LATER_S
    longest = int(tokens.max())
    frames = math.ceil((most * longest * pace + late) * FRAME_RATE)
    return LimitsTable(
        context=_BLOCK * math.ceil((longest + frames) / _BLOCK),
        max_text_tokens=max(longest, 8),
        seconds_per_token=pace,
        min_ratio=round(min(least, 1.0), 2),
        max_ratio=round(most, 2),
        slack_s=round(late, 2),
        max_utterance_s=_MAX_UTTERANCE_S,
    )
