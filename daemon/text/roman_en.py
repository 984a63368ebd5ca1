"""English rules for Roman numerals: after names of kings, of chapters, and of whatever has a number."""

from re import Match

from daemon.text.numbers_en import cardinal, ordinal, year
from daemon.text.rule import Rule

_VALUES = {"I": 1, "V": 5, "X": 10, "L": 50, "C": 100, "M": 1000}
_NUMERAL = r"(?=[IVXL])(?:XC|XL|L?X{0,3})(?:IX|IV|V?I{0,3})"
_LONG = rf"(?=[IVXL]{{2}}){_NUMERAL}"

_SHORT = rf"(?=[IVX]{{2}}){_NUMERAL}"
"""XL is rather a size."""

_PARTS = (
    "chapter|part|act|scene|volume|book|episode|section|article|phase|stage|type|grade|level|appendix|world war|"
    "super bowl|mark|title|season|round|annex|apollo|olympiad"
)
_TITLES = "King|Queen|Pope|Emperor|Empress|Tsar|Czar|Prince|Princess|Sultan|Pharaoh|Shah|Kaiser"
_RULERS = (
    "Henry|Elizabeth|Louis|Charles|George|Edward|Richard|James|William|Mary|John|Paul|Pius|Benedict|Leo|Gregory|Clement|"
    "Innocent|Philip|Felipe|Ferdinand|Frederick|Friedrich|Wilhelm|Nicholas|Alexander|Peter|Catherine|Ivan|Napoleon|"
    "Margaret|Margrethe|Harald|Haakon|Gustav|Carl|Christian|Albert|Leopold|Victor|Emmanuel|Umberto|Alfonso|Carlos|"
    "Francis|Franz|Joseph|Josef|Maximilian|Rudolf|Otto|Constantine|Darius|Xerxes|Mehmed|Selim|Murad|Cyrus|Ptolemy|"
    "Ramses|Ramesses|Thutmose|Amenhotep|Robert|David|Urban|Boniface|Sixtus|Adrian|Julius|Rama"
)
_NOT_NAMES = "The|An|Your|My|Our|His|Her|This|That|New|No|Start|Check|Change|Use"
_ENDS = r"(?=[,;:!?)\"]|\.(?!\s[A-Z])|\s?$|'s\b|\s(?:of|was|is|and|or|who|had|lost|died|ruled|reigned)\b)"


def value(numeral: str) -> int:
    """XIV is 14."""
    values = [_VALUES[letter] for letter in numeral]
    return sum(-one if one < following else one for one, following in zip(values, [*values[1:], 0], strict=True))


def _ruler(match: Match[str]) -> str:
    return f"{match[1]} the {ordinal(str(value(match[2])))}"


def _numbered(match: Match[str]) -> str:
    return f"{match[1]} {cardinal(str(value(match[2])))}"


ROMAN_RULES: list[Rule] = [
    (r"\b(?=[MCLXVI]{4})(?:MCM|MM)(?:XC|XL|L?X{0,3})(?:IX|IV|V?I{0,3})\b", lambda match: year(str(value(match[0])))),
    (rf"\b((?:{_TITLES})(?:\s[A-Z][a-z]{{1,20}}){{1,2}})\s({_LONG}|[VX])(?![\w-]|'(?!s\b))(?!\.\s[A-Z])", _ruler),
    (rf"\b((?:{_TITLES})(?:\s[A-Z][a-z]{{1,20}}){{1,2}})\s(I){_ENDS}", _ruler),
    (rf"\b((?i:{_RULERS}))\s({_LONG}|V)(?![\w-]|'(?!s\b))(?!\.\s[A-Z])", _ruler),
    (rf"\b({_RULERS})\s(I){_ENDS}", _ruler),
    (rf"(?i)\b({_PARTS})\s((?-i:{_LONG}))(?![\w-]|'(?!s\b))", _numbered),
    # a part I like is not part one
    (
        rf"\b({_PARTS.title()})\s([IVX])(?![\w-]|'(?!s\b))(?!\s(?:am|was|have|had|will|would|do|did|can|like|love)\b)",
        _numbered,
    ),
    (
        rf"\b(?!(?:{_NOT_NAMES})\s)([A-Z][a-z]{{1,30}})\s({_SHORT})(?![\w-]|'(?!s\b))(?!\s(?:drip|bag|line|fluids?|pump|therapy)\b)",
        _numbered,
    ),
]
"""A king's numeral is read as an ordinal, any other as a number."""
