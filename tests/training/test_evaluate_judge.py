"""The recogniser hears what is said, remembers what it has heard, and its error rates come with true intervals."""

import json

import numpy as np
import pytest
from flite_speech import RATE, say

from daemon.errors import StoreError
from training.crew import Crew
from training.judge import Judge, count_errors, ratio, recognise
from training.ledger import Ledger
from training.stopping import Stopped, StopRequest

TEXT = "please close the door."


class NoCrew:
    """Nobody, to see that nothing is to be done."""

    def each(self, _function, jobs, _label):
        assert jobs == []
        return iter(())


def test_what_is_said_clearly_is_heard():
    """And silence is nothing, not an error."""
    assert recognise(say(TEXT)) == "please close the door"
    assert recognise(np.zeros(RATE, np.int16)) == ""


def test_an_utterance_is_heard_the_same_after_others():
    """The recogniser does not adapt from one to the next."""
    before = recognise(say("stew is on the stove."))
    for text in (TEXT, "the quarterly report was late."):
        recognise((say(text) // 8).astype(np.int16))
    assert recognise(say("stew is on the stove.")) == before


@pytest.mark.parametrize(
    ("text", "heard", "counts"),
    [
        ("Don't stop, please!", "don't stop please", (0, 3)),
        ("one two three.", "one too three", (1, 3)),
        ("one two three.", "", (3, 3)),
        ("yes.", "oh yes it is", (3, 1)),
    ],
)
def test_wrong_missing_and_surplus_words_count(text, heard, counts):
    """Marks and capitals do not."""
    assert count_errors(text, heard) == counts


def test_nothing_is_heard_twice(tmp_path):
    """Neither in one run nor in the next, as long as the samples are the same."""
    sounds = [say(TEXT), say("yes."), say(TEXT)]
    heard = Judge(tmp_path / "heard.jsonl", Crew(1, StopRequest())).hear(sounds)
    assert len((tmp_path / "heard.jsonl").read_text().splitlines()) == 2
    assert Judge(tmp_path / "heard.jsonl", NoCrew()).hear(sounds) == heard
    with pytest.raises(AssertionError):
        Judge(tmp_path / "heard.jsonl", NoCrew()).hear([say(TEXT) + np.int16(1)])


def test_processes_hear_what_one_hears(tmp_path):
    """In the order of the utterances."""
    sounds = [say(TEXT), say("yes."), say("no?")]
    with Crew(2, StopRequest()) as crew:
        assert Judge(tmp_path / "two.jsonl", crew).hear(sounds) == [recognise(sound) for sound in sounds]


def test_a_stop_keeps_what_was_heard(tmp_path):
    """And the next run goes on from there."""
    request = StopRequest(minutes=0)
    with pytest.raises(Stopped):
        Judge(tmp_path / "heard.jsonl", Crew(1, request)).hear([say(TEXT), say("yes.")])
    assert request.obeyed
    assert len((tmp_path / "heard.jsonl").read_text().splitlines()) == 1


def test_a_line_cut_short_is_forgotten_and_written_over(tmp_path):
    """As after a crash; the lines before it stay."""
    path = tmp_path / "ledger.jsonl"
    path.write_text('["one", 1]\n["two", 2]\n["thr')
    ledger = Ledger(path)
    assert "one" in ledger
    assert "three" not in ledger
    ledger["three"] = [3]
    assert [json.loads(line) for line in path.read_text().splitlines()] == [["one", 1], ["two", 2], ["three", [3]]]
    assert Ledger(path)["three"] == [3]


def test_a_ledger_that_cannot_be_written_is_named(tmp_path):
    """In one line."""
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="file"):
        Ledger(tmp_path / "file" / "ledger.jsonl")["one"] = 1


def test_intervals_hold_the_true_ratio():
    """In about 95 of 100 experiments, of texts whose errors go together in both voices."""
    rng = np.random.default_rng(1)
    inside = 0
    for _ in range(200):
        difficulty = rng.beta(1, 3, 150)
        theirs = rng.binomial(9, difficulty)
        ours = rng.binomial(9, np.minimum(1, difficulty * 1.3))
        found = ratio(ours, theirs, 400)
        true = np.minimum(1, np.random.default_rng(2).beta(1, 3, 100_000) * 1.3).mean() / 0.25
        inside += found.low <= true <= found.high
        assert found.low <= found.value <= found.high
    assert 180 <= inside <= 198


def test_texts_are_drawn_together():
    """The same voice twice has a ratio of 1 without doubt, however few the texts are."""
    counts = np.array([3, 0, 1, 7, 2])
    assert ratio(counts, counts, 200) == (1, 1, 1)
    assert np.isnan(ratio(counts, 0 * counts, 200).value)
