"""CSM's tokenizer: both ends are marked, no text can spell a mark, and another model's is refused."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reference_csm import BOS, EOS, SMALL_SPECIALS, TEXT, small_tokenizer
from tokenizers import Tokenizer, models, pre_tokenizers

from daemon.errors import ModelError
from quantize.csm_tokenizer import load_tokenizer

ROWS = 300
BEGIN_ID, END_ID = SMALL_SPECIALS[BOS], SMALL_SPECIALS[EOS]


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """tokenizer.json as it is published."""
    return small_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module")
def tokenizer(published):
    """As the daemon loads it."""
    return Tokenizer.from_str(load_tokenizer(published, ROWS, BEGIN_ID))


def refusal(path, num_rows=ROWS, begin_id=BEGIN_ID) -> str:
    """The one line that is said."""
    with pytest.raises(ModelError) as caught:
        load_tokenizer(path, num_rows, begin_id)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"{path}: ")
    return str(caught.value)


def write(path, **changes):
    """A copy of the published file with other keys, beside it."""
    data = json.loads(path.read_text(encoding="utf-8")) | changes
    other = path.with_name("changed.json")
    other.write_text(json.dumps(data), encoding="utf-8")
    return other


@pytest.mark.parametrize(
    "text", [TEXT, "[0]Hello.", "", " ", "caf\N{LATIN SMALL LETTER E WITH ACUTE} \N{GRINNING FACE}"]
)
def test_text_stands_between_both_marks(published, tokenizer, text):
    """The published file puts BEGIN in front; here END follows as well; between them the tokens are the same."""
    reference = Tokenizer.from_file(str(published))
    assert tokenizer.encode(text).ids == [BEGIN_ID, *reference.encode(text, add_special_tokens=False).ids, END_ID]
    assert reference.encode(text).ids == tokenizer.encode(text).ids[:-1]


@given(parts=st.lists(st.sampled_from([*SMALL_SPECIALS, "[1]", "and ", "x"]) | st.text(max_size=4), max_size=6))
def test_no_text_spells_a_special_token(tokenizer, parts):
    """What looks like a mark is read letter by letter, and nothing of a text is lost."""
    text = "".join(parts)
    ids = tokenizer.encode(text).ids
    assert (ids[0], ids[-1]) == (BEGIN_ID, END_ID)
    assert not set(ids[1:-1]) & set(SMALL_SPECIALS.values())
    assert tokenizer.decode(ids[1:-1]) == text


def test_marks_in_the_vocabulary_are_not_spelled_either(tmp_path):
    """A tokenizer whose pieces include the marks, and that takes whole pieces first."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: number for number, letter in enumerate(letters)} | {BOS: BEGIN_ID, EOS: END_ID}
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=[], ignore_merges=True))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    path = tmp_path / "tokenizer.json"
    made.save(str(path))
    assert made.encode(EOS).ids == [END_ID]
    ids = Tokenizer.from_str(load_tokenizer(path, ROWS, None)).encode(EOS).ids
    assert ids.count(END_ID) == 1
    assert len(ids) == 2 + len(EOS)


def test_words_that_somebody_added_are_kept(published):
    """A tag that a fine-tuned model knows is no mark: it stays one token."""
    added = json.loads(published.read_text(encoding="utf-8"))["added_tokens"]
    tag = added[-1] | {"content": "<laugh>", "special": False}
    path = write(published, added_tokens=[*added[:-1], tag])
    ids = Tokenizer.from_str(load_tokenizer(path, ROWS, BEGIN_ID)).encode("a<laugh>").ids
    assert ids[2] == tag["id"]
    assert len(ids) == 4


def test_nothing_is_cut_or_filled_up(published):
    """What the published file says of truncation and padding is not the daemon's."""
    cut = {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0}
    fill = {"strategy": {"Fixed": 99}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0, "pad_type_id": 0,
            "pad_token": "!"}  # fmt: skip
    path = write(published, truncation=cut, padding=fill)
    ids = Tokenizer.from_str(load_tokenizer(path, ROWS, BEGIN_ID)).encode(TEXT).ids
    assert ids == Tokenizer.from_str(load_tokenizer(published, ROWS, BEGIN_ID)).encode(TEXT).ids
    assert len(ids) > 20


@pytest.mark.parametrize("name", [BOS, EOS])
def test_tokenizer_without_the_marks_is_refused(published, name):
    """As any other model's is."""
    added = json.loads(published.read_text(encoding="utf-8"))["added_tokens"]
    path = write(published, added_tokens=[token for token in added if token["content"] != name], post_processor=None)
    assert f"not this model's tokenizer: expected an id for {name}, found None" in refusal(path, begin_id=None)


def test_marks_of_other_ids_are_refused(published):
    """By config.json, or because the true model's are known."""
    assert f"expected id 5 for {BOS}, found {BEGIN_ID}" in refusal(published, begin_id=5)
    assert f"expected id 128000 for {BOS}, found {BEGIN_ID}" in refusal(published, 128_256, None)


@pytest.mark.parametrize("rows", [200, 296, 297])
def test_vocabulary_beyond_the_embeddings_is_refused(published, rows):
    """Every id that a text can give needs a row."""
    assert f"expected ids below {rows}, the rows of the text embeddings, found {END_ID}" in refusal(published, rows)
    assert load_tokenizer(published, END_ID + 1, BEGIN_ID)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "no JSON",
        "[]",
        "{}",
        '{"model": 3}',
        '{"version": "1.0", "model": {"type": "BPE"}}',
        "\udcff",
        "[" * 100_000,
    ],
)
def test_other_files_are_refused(tmp_path, content):
    """Not JSON, or JSON of something else."""
    path = tmp_path / "tokenizer.json"
    path.write_bytes(content.encode("utf-8", "surrogateescape"))
    refusal(path)


def test_truncated_tokenizer_is_refused(published, tmp_path):
    """As after an interrupted download."""
    path = tmp_path / "tokenizer.json"
    path.write_bytes(published.read_bytes()[:-100])
    assert "not JSON" in refusal(path)
    assert "No such file" in refusal(tmp_path / "nowhere.json")


def test_tokenizers_of_another_kind_are_refused(tmp_path):
    """WordPiece has no bytes to spell with."""
    made = Tokenizer(models.WordPiece({BOS: 0, EOS: 1, "a": 2, "[UNK]": 3}, unk_token="[UNK]"))  # noqa: S106  # no secret
    path = tmp_path / "tokenizer.json"
    made.save(str(path))
    assert "expected a BPE model, found WordPiece" in refusal(path, begin_id=None)
