"""English words for abbreviations, names and symbols: data only."""

WEEKDAYS: dict[str, str] = {
    name[:3].lower(): name for name in ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
}

MONTHS: dict[str, str] = {
    name[:3].lower(): name
    for name in (
        *("January", "February", "March", "April", "May", "June"),
        *("July", "August", "September", "October", "November", "December"),
    )
}

TITLES: dict[str, str] = {
    # read out before a name; the dot never ends a sentence
    "mr": "mister",
    "mrs": "missus",
    "ms": "miz",
    "dr": "doctor",
    "drs": "doctors",
    "prof": "professor",
    "capt": "captain",
    "lt": "lieutenant",
    "sgt": "sergeant",
}

RANKS: dict[str, str] = {
    # the same, but only with a capital, a dot, and a name after it
    "gen": "general",
    "gov": "governor",
    "sen": "senator",
    "rep": "representative",
    "pres": "president",
    "hon": "honorable",
    "rev": "reverend",
    "col": "colonel",
    "maj": "major",
    "cpl": "corporal",
    "pvt": "private",
    "adm": "admiral",
    "cmdr": "commander",
}

ABBREVIATIONS: dict[str, str] = {
    # with a dot after them; an inner dot may be left out
    "e.g": "for example",
    "i.e": "that is",
    "etc": "et cetera",
    "a.k.a": "also known as",
    "vs": "versus",
    "approx": "approximately",
    "ave": "avenue",
    "rd": "road",
    "blvd": "boulevard",
    "ln": "lane",
    "ct": "court",
    "sq": "square",
    "hwy": "highway",
    "pkwy": "parkway",
    "cres": "crescent",
    "apt": "apartment",
    "bldg": "building",
    "pkg": "package",
    "dept": "department",
    "min": "minimum",
    "max": "maximum",
    "avg": "average",
    "appt": "appointment",
    "incl": "including",
    "excl": "excluding",
    "qty": "quantity",
    "misc": "miscellaneous",
    "asst": "assistant",
    "mgr": "manager",
    "intl": "international",
    "univ": "university",
    "temp": "temperature",
    "govt": "government",
    "jr": "junior",
    "sr": "senior",
    "inc": "incorporated",
    "ltd": "limited",
    "corp": "corporation",
    "ext": "extension",
    "tel": "telephone",
    "hr": "hour",
    "hrs": "hours",
    "mon": "Monday",
    "tue": "Tuesday",
    "tues": "Tuesday",
    "wed": "Wednesday",
    "thu": "Thursday",
    "thur": "Thursday",
    "thurs": "Thursday",
    "fri": "Friday",
    "jan": "January",
    "feb": "February",
    "apr": "April",
    "aug": "August",
    "sept": "September",
    "sep": "September",
    "oct": "October",
    "nov": "November",
    "dec": "December",
}

SHORT_FORMS: dict[str, str] = {
    # without a dot
    "pls": "please",
    "plz": "please",
    "thx": "thanks",
    "btw": "by the way",
    "aka": "also known as",
    "msg": "message",
    "ctrl": "control",
    "hrs": "hours",
    "lbs": "pounds",
    "tsp": "teaspoons",
    "tbsp": "tablespoons",
    "mph": "miles per hour",
    "pcs": "pieces",
    "pkg": "package",
    "pkgs": "packages",
    "SpO2": "S P O two",
    "YoY": "year over year",
}

BEFORE_NUMBER: dict[str, str] = {
    # with a dot after them and a number after that
    "no": "number",
    "nr": "number",
    "nos": "numbers",
    "p": "page",
    "pp": "pages",
    "fig": "figure",
    "figs": "figures",
    "vol": "volume",
    "ch": "chapter",
    "sec": "section",
    "ep": "episode",
    "rm": "room",
    "ste": "suite",
    "rte": "route",
    "ca": "circa",
    "c": "circa",
}

UNDOTTED = "Apt|apt|Bldg|Ep|Ext|ext|Fig|Rm|rm|Rte|Ste|Vol"
"""Before a number these need no dot."""

ROADS = "Ave|Rd|Blvd|Ln|Ct|Sq|Hwy|Pkwy|Cres"
"""Of these the dot is often left out."""

COMPASS: dict[str, str] = {
    "N": "north",
    "NE": "northeast",
    "E": "east",
    "SE": "southeast",
    "S": "south",
    "SW": "southwest",
    "W": "west",
    "NW": "northwest",
    "NNE": "north northeast",
    "ENE": "east northeast",
    "ESE": "east southeast",
    "SSE": "south southeast",
    "SSW": "south southwest",
    "WSW": "west southwest",
    "WNW": "west northwest",
    "NNW": "north northwest",
}

ZONES = "EST|EDT|ET|CST|CDT|CT|MST|MDT|MT|PST|PDT|PT|UTC|GMT|BST|CET|CEST"
"""Time zones."""

CALENDAR = frozenset(
    {*(name.lower() for name in (*WEEKDAYS.values(), *MONTHS.values())), *WEEKDAYS, *MONTHS}
    | {"tues", "thur", "thurs", "sept", "a.m", "p.m", "am", "pm", *ZONES.lower().split("|")}
)
"""Names of days and months, whole and cut, halves of the day and time zones: 7 p.m. Monday, 9 p.m. CDT."""

STREET = r"(?<=[^.!?]\s)(?!(?:Mount|Mt|Lake|Port|Fort|Sault)\s)((?:[A-Z][a-z]{1,30}|[0-9]{1,3}(?:st|nd|rd|th))\s)St"
"""Regex of a street's name; St without one is a saint's."""

DRIVE = (
    r"((?:(?<![\w.])[0-9]{1,5}\s(?:[A-Z][a-z]{1,30}\s){1,3}"
    r"|\b(?:on|along|down|onto|off)\s[A-Z][a-z]{1,30}\s(?!Dr\.?\s[A-Z])))Dr"
)
"""The same of a drive: 12 Elm Dr., on Oak Dr. (a doctor has a name after it)."""

CODE_WORDS = (
    "bus|gate|platform|seat|room|row|unit|terminal|section|zone|line|house|exit|track|apartment|apt|flat|suite|tram|"
    "stop|door|block|class|runway|bed|ward|aisle|bay|dock|counter|coach|carriage|lane|locker|grade"
)
"""A number with a letter after one of these (12C) is a name, not an amount."""

NEVER_END = frozenset(
    {*TITLES, *RANKS, "e.g", "i.e", "eg", "ie", "vs", "approx", "st", "mt", "Ft", "ext", "tel", "a.k.a", "incl", "excl"}
)
"""Abbreviations (with a capital: only so) after whose dot the sentence goes on, whatever follows."""

_SHORT_UNITS = "fl ft gal in lb lbs mi mins mo mos oz pkg sec secs tbsp tsp wk wks yd yds yr yrs"
MAY_END = (
    frozenset(
        {*ABBREVIATIONS, "a.m", "p.m", "am", "pm", "co", "jun", "jul", "mar", "sat", "sun", *_SHORT_UNITS.split()}
    )
    - NEVER_END
)
"""Abbreviations whose dot ends the sentence only where a capital follows."""

ENTITIES = (
    "alarm_control_panel|automation|binary_sensor|button|calendar|camera|climate|counter|cover|device_tracker|event|fan|"
    "group|humidifier|input_boolean|input_button|input_datetime|input_number|input_select|input_text|lawn_mower|light|"
    "lock|media_player|number|person|remote|scene|script|select|sensor|siren|sun|switch|timer|todo|update|vacuum|valve|"
    "water_heater|weather|zone"
)
"""What comes before the dot in the names of Home Assistant."""

PROGRAMS = (
    "version|release|firmware|build|python|android|ios|macos|ipados|windows|linux|kernel|ubuntu|debian|fedora|java|node|"
    "home assistant|esphome|supervisor|core|zigbee2mqtt|docker|openssl|chrome|firefox"
)
"""A dotted number after one of these is a version."""

TOP_LEVEL_DOMAINS = (
    "com|org|net|edu|gov|info|io|ai|tv|me|dev|app|eu|uk|ie|de|at|fr|nl|be|ch|it|es|se|no|dk|pl|ca|us|au|nz|"
    "local|lan|home"
)
"""A dotted word that ends in one of these is read as a host name."""

SYMBOLS: dict[str, str] = {
    "&": "and",
    "@": "at",
    "+": "plus",
    "=": "equals",
    "±": "plus or minus",
    "\u00d7": "times",
    "÷": "divided by",
    "≈": "about",
    "≠": "not equal to",
    "≤": "at most",
    "≥": "at least",
    "→": "to",
    "⇒": "to",
    "°": "degrees",
    "%": "percent",
    "‰": "per mille",
    "€": "euros",
    "£": "pounds",
    "$": "dollars",
    "¥": "yen",
    "¢": "cents",
    "§": "section",
    "Ω": "ohms",
    "π": "pi",
    "√": "the square root of",
    "∞": "infinity",
}
