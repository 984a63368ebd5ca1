"""The codec alone, as the evaluation makes it: the teacher's utterances to codes and back, kept in files."""

from dataclasses import asdict

import numpy as np
import torch
from codec_scene import SIZES, codec, spoken

from training import coded
from training.checkpoint import save
from training.crew import Crew
from training.shelf import read
from training.speech import Speech
from training.stopping import StopRequest
from training.workspace import Workspace


def test_utterances_keep_their_length_and_are_made_once_for_each_codec(tmp_path, monkeypatch):
    """They are what the networks give for the padded audio; another codec has a folder of its own."""
    spoken(tmp_path / "work")
    work = Workspace(tmp_path / "work")
    speech = Speech(work)
    numbers = speech.split("held")
    made = {}
    for seed in (0, 1):
        save(work.codec / "recon.pt", {"sizes": asdict(SIZES), "codec": codec(seed).state_dict()})
        coded._codec.cache_clear()
        made[seed] = coded.Coded(work, 2, "cpu", Crew(1, StopRequest())).speak(speech, numbers)
    assert [item.num_samples for item in made[0]] == [speech.utterances[number].num_samples for number in numbers]
    assert {item.path for item in made[0]}.isdisjoint(item.path for item in made[1])
    model = codec(1)
    whole = model.decode(model.encode(torch.from_numpy(speech.padded(numbers[0]))[None], 2))[0].numpy()
    pcm = read(made[1][0].path)
    np.testing.assert_allclose(pcm / 32767, whole[: len(pcm)].clip(-1, 1), atol=2 / 32767)
    monkeypatch.setattr(coded, "_code", lambda _order: 1 / 0)
    assert coded.Coded(work, 2, "cpu", Crew(1, StopRequest())).speak(speech, numbers) == made[1]
