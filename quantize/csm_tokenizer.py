"""The tokenizer of CSM: Llama 3's, with both ends of a segment marked and no way to spell its marks in a text."""

import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from daemon.errors import ModelError
from quantize.checkpoint_files import parse_json

BEGIN, END = "<|begin_of_text|>", "<|end_of_text|>"
_LLAMA3_ROWS, _LLAMA3_IDS = 128_256, (128_000, 128_001)


def load_tokenizer(path: Path, num_rows: int, begin_id: int | None) -> str:
    """The JSON of tokenizer.json as the daemon needs it, where every text becomes BEGIN, its tokens, END.

    Special tokens are left out of those that are looked for in a text: "<|end_of_text|>" is then read letter by
    letter, like any other word. The published file marks the beginning only.

    Args:
        path: tokenizer.json.
        num_rows: how many ids the text embeddings have.
        begin_id: what the model's configuration says is BEGIN's id, if it does.

    Raises:
        ModelError: not a tokenizer, or not this model's.

    Source: SesameAILabs/csm generator.py ``load_llama3_tokenizer`` (revision 2d72082).
    """
    data = parse_json(path)
    tokenizer = _parse(path, data)
    ids = [
        _special_id(path, tokenizer, name, expected)
        for name, expected in zip((BEGIN, END), _expected_ids(num_rows, begin_id), strict=True)
    ]
    _drop_special(path, data)
    data["post_processor"] = _both_ends(ids[0], ids[1])
    data["truncation"] = data["padding"] = None
    tokenizer = _parse(path, data)
    largest = max([*ids, *tokenizer.get_vocab().values()])
    if largest >= num_rows:
        raise ModelError(
            f"{path}: not this model's tokenizer: expected ids below {num_rows}, the rows of the text embeddings,"
            f" found {largest}",
        )
    return json.dumps(data, ensure_ascii=False)


def _parse(path: Path, data: dict[str, Any]) -> Tokenizer:
    try:
        return Tokenizer.from_str(json.dumps(data))
    except Exception as err:  # tokenizers raises bare Exception
        raise ModelError(f"{path}: not a tokenizers file: {' '.join(str(err).split())}") from err


def _special_id(path: Path, tokenizer: Tokenizer, name: str, expected: int | None) -> int:
    found = tokenizer.token_to_id(name)
    if found is None or expected not in (None, found):
        wanted = "an id" if expected is None else f"id {expected}"
        raise ModelError(f"{path}: not this model's tokenizer: expected {wanted} for {name}, found {found}")
    return int(found)


def _expected_ids(num_rows: int, begin_id: int | None) -> tuple[int | None, int | None]:
    if num_rows == _LLAMA3_ROWS:
        return _LLAMA3_IDS
    return begin_id, None


def _drop_special(path: Path, data: dict[str, Any]) -> None:
    """Take the special tokens out of ``data``: out of those found in a text, and out of what pieces can make."""
    if data["model"].get("type") != "BPE":
        raise ModelError(f"{path}: expected a BPE model, found {data['model'].get('type')}")
    added = data.get("added_tokens", [])
    special = {BEGIN, END} | {token["content"] for token in added if token["special"]}
    data["added_tokens"] = [token for token in added if token["content"] not in special]
    vocabulary = {token: number for token, number in data["model"]["vocab"].items() if token not in special}
    # Those that stay need an entry: without one the library would number them anew where the special ones were.
    data["model"]["vocab"] = vocabulary | {token["content"]: token["id"] for token in data["added_tokens"]}


def _both_ends(begin_id: int, end_id: int) -> dict[str, Any]:
    single = [
        {"SpecialToken": {"id": BEGIN, "type_id": 0}},
        {"Sequence": {"id": "A", "type_id": 0}},
        {"SpecialToken": {"id": END, "type_id": 0}},
    ]
    return {
        "type": "TemplateProcessing",
        "single": single,
        "pair": [*single, {"Sequence": {"id": "B", "type_id": 0}}],
        "special_tokens": {
            name: {"id": name, "ids": [number], "tokens": [name]} for name, number in ((BEGIN, begin_id), (END, end_id))
        },
    }
