"""The tokenizer of a voice that reads characters: one token each, and a mark for who speaks."""

import json

_BOS, _EOT = "<bos>", "<eot>"
_BRACKET_IN_TEXT = r"(?<!\A)\["
"""The bracket that opens the speaker's mark, anywhere but where the prompt's template puts it."""


def character_tokenizer(alphabet: str, num_speakers: int) -> str:
    """The JSON of a tokenizer: "[1]text" becomes BOS, the mark of speaker 1, a token a character, EOT.

    Ids are those of the alphabet's characters in order, then BOS, EOT and the speakers. Capitals are lowered, and
    what the alphabet lacks is dropped: so BPE without merges does. It never makes a token of several characters out of
    a text; only the speakers' marks are looked for, after every opening bracket but the very first has been dropped.
    So a text in which somebody wrote "[1]" does not change who speaks.
    """
    bos, eot = len(alphabet), len(alphabet) + 1
    marks = {f"[{number}]": eot + 1 + number for number in range(num_speakers)}
    vocabulary = {letter: number for number, letter in enumerate(alphabet)} | {_BOS: bos, _EOT: eot} | marks
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": True, "special": False}
    return json.dumps(
        {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [{"id": number, "content": mark, **flags} for mark, number in marks.items()],
            "normalizer": {
                "type": "Sequence",
                "normalizers": [
                    {"type": "Replace", "pattern": {"Regex": _BRACKET_IN_TEXT}, "content": ""},
                    {"type": "Lowercase"},
                ],
            },
            "pre_tokenizer": None,
            "post_processor": _both_ends(bos, eot),
            "decoder": None,
            "model": {"type": "BPE", "vocab": vocabulary, "merges": []},
        },
        indent=1,
    )


def _both_ends(bos: int, eot: int) -> dict[str, object]:
    single = [
        {"SpecialToken": {"id": _BOS, "type_id": 0}},
        {"Sequence": {"id": "A", "type_id": 0}},
        {"SpecialToken": {"id": _EOT, "type_id": 0}},
    ]
    return {
        "type": "TemplateProcessing",
        "single": single,
        "pair": [*single, {"Sequence": {"id": "B", "type_id": 0}}],
        "special_tokens": {
            name: {"id": name, "ids": [number], "tokens": [name]} for name, number in ((_BOS, bos), (_EOT, eot))
        },
    }
