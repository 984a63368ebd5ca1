"""The texts: varied, in the alphabet, and nothing that is judged is ever learned from."""

import json
import re
import shutil

import pytest

from daemon.errors import BadRequestError, ConfigError, ModelError
from training import config as training_config
from training import corpus, sources
from training.config import Config, CorpusConfig, PathsConfig
from training.templates import TEMPLATES, Filler
from training.text import ALPHABET, encode, num_tokens, spoken
from training.workspace import Workspace

SMALL = {
    "announcements": 300,
    "sentences": 300,
    "definitions": 100,
    "docstrings": 50,
    "vocabulary": 900,
    "names": 60,
    "words": 80,
    "spellings": 40,
    "numbers": 40,
    "long": 30,
    "short": 60,
}


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A workspace with a small corpus."""
    if not shutil.which("wn") and not sources._WORDNET.exists():  # where the package puts it
        pytest.skip("wordnet-base is not installed")
    work = tmp_path_factory.mktemp("work")
    config = Config(paths=PathsConfig(work=str(work)), corpus=CorpusConfig(**SMALL))
    corpus.run(config)
    first = Workspace(work).corpus.read_bytes()
    corpus.run(config)
    assert Workspace(work).corpus.read_bytes() == first
    return Workspace(work)


@pytest.fixture(scope="module")
def texts(work):
    """Its texts."""
    return json.loads(work.corpus.read_bytes())


def test_every_text_is_in_the_alphabet_and_within_the_longest(texts):
    """Whatever is spoken can be encoded, and training texts fit the longest segment."""
    for text, source in texts["train"] + texts["held"]:
        assert set(text) <= set(ALPHABET)
        assert source == "paragraphs" or len(text) <= CorpusConfig().max_characters


def test_nothing_held_out_is_learned_from(texts):
    """No held-out text, no sentence of a held-out paragraph and no unseen word is in the training texts."""
    train = {text.strip(".!?") for text, _ in texts["train"]}
    for text, _ in texts["held"]:
        assert text.strip(".!?") not in train
        assert not {part.strip(" .!?") for part in re.split(r"(?<=[.?!]) ", text)} & train
    words = [text[:-1] for text, source in texts["held"] if source == "words"]
    learned = {word for text, _ in texts["train"] for word in re.findall(r"[a-z']+", text)}
    assert sum(word not in learned for word in words) >= len(words) // 2


def test_those_who_record_are_given_texts_to_read(work, texts):
    """Numbered, none too long for one breath, in the form of metadata.csv, and all new: also to flite's voices."""
    lines = [line.split("|") for line in work.to_read.read_text(encoding="utf-8").splitlines()]
    assert [name for name, _ in lines] == [f"{number:04}" for number in range(1, 1001)]
    read = {text for _, text in lines}
    assert len(read) == 1000
    assert read.isdisjoint(text for text, _ in texts["train"] + texts["held"])
    assert max(map(len, read)) <= 90


def test_held_out_announcements_begin_with_any_letter(texts):
    """They are a fair sample of what the templates give, and none is a part of a training text."""
    announcements = [text for text, source in texts["held"] if source == "announcements"]
    assert {text[0] for text in announcements} >= set("acdgity")
    assert not [text for text in announcements if any(text in other for other, _ in texts["train"])]


def test_the_sets_are_as_large_as_the_bars_need(texts):
    """200 announcements, 300 sentences, 500 words, 100 one-word utterances, 50 paragraphs; all kinds are trained."""
    counts = {name: sum(source == name for _, source in texts["held"]) for name in corpus.NUM_HELD}
    assert counts == corpus.NUM_HELD
    assert {source for _, source in texts["train"]} == set(SMALL)


def test_every_template_can_be_filled_and_said():
    """No slot is misspelled, and every template gives speakable text."""
    import random

    filler = Filler(random.Random(0))
    for template in TEMPLATES:
        filled = filler.fill(template)
        assert "{" not in filled
        assert spoken(filled)


def test_a_missing_package_is_named(monkeypatch, tmp_path):
    """Without WordNet the error says which Debian package to install."""
    monkeypatch.setattr(sources, "_WORDNET", tmp_path)
    with pytest.raises(ModelError, match="apt install wordnet-base"):
        sources.wordnet()


def test_prompts_are_what_the_bundle_reads():
    """BOS, speaker, characters, EOT; characters outside the alphabet are refused."""
    assert encode("ab.", 1) == [32, 35, 0, 1, 29, 33]
    assert num_tokens(2) == 36
    with pytest.raises(BadRequestError, match="alphabet"):
        encode("5", 0)


def test_configuration_errors_name_the_key(tmp_path):
    """A misspelled key, a wrong type and a file that is not there are one line each."""
    path = tmp_path / "voice.toml"
    path.write_text("[corpus]\nsentences = 5\n", encoding="utf-8")
    assert training_config.load(path, {"corpus.words": 3}).corpus.words == 3
    path.write_text("[corpus]\nsentence = 5\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"corpus\.sentence"):
        training_config.load(path)
    path.write_text('[[speech.speakers]]\nname = "me"\ndescription = "x"\n', encoding="utf-8")
    with pytest.raises(ConfigError, match="either flite or recordings"):
        training_config.load(path)
    with pytest.raises(ConfigError, match="No such file"):
        training_config.load(tmp_path / "none.toml")


def test_a_vocabulary_that_is_held_out_whole_gives_no_words(texts):
    """There are fewer texts then; it does not search for ever."""
    few = corpus.Corpus(CorpusConfig(**SMALL | {"vocabulary": 100}))
    kept_back = few.kept_back()
    assert "words" not in {source for _, source in few.train({text for text, _ in kept_back})}
