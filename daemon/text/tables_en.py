"""English words for symbols, units, currencies and abbreviations: data only."""

UNITS: dict[str, tuple[str, str]] = {
    # symbol: (one, many); superscripts arrive as ^2 and ^3, the micro sign as Greek mu
    "km": ("kilometer", "kilometers"),
    "m": ("meter", "meters"),
    "cm": ("centimeter", "centimeters"),
    "mm": ("millimeter", "millimeters"),
    "μm": ("micrometer", "micrometers"),
    "nm": ("nanometer", "nanometers"),
    "Nm": ("newton meter", "newton meters"),
    "mi": ("mile", "miles"),
    "ft": ("foot", "feet"),
    "yd": ("yard", "yards"),
    "km^2": ("square kilometer", "square kilometers"),
    "m^2": ("square meter", "square meters"),
    "m2": ("square meter", "square meters"),
    "cm^2": ("square centimeter", "square centimeters"),
    "m^3": ("cubic meter", "cubic meters"),
    "m3": ("cubic meter", "cubic meters"),
    "cm^3": ("cubic centimeter", "cubic centimeters"),
    "sq ft": ("square foot", "square feet"),
    "km/h": ("kilometer per hour", "kilometers per hour"),
    "kmh": ("kilometer per hour", "kilometers per hour"),
    "kph": ("kilometer per hour", "kilometers per hour"),
    "m/s": ("meter per second", "meters per second"),
    "mph": ("mile per hour", "miles per hour"),
    "kg": ("kilogram", "kilograms"),
    "g": ("gram", "grams"),
    "mg": ("milligram", "milligrams"),
    "μg": ("microgram", "micrograms"),
    "lb": ("pound", "pounds"),
    "lbs": ("pound", "pounds"),
    "oz": ("ounce", "ounces"),
    "l": ("liter", "liters"),
    "L": ("liter", "liters"),
    "ml": ("milliliter", "milliliters"),
    "mL": ("milliliter", "milliliters"),
    "cl": ("centiliter", "centiliters"),
    "l/min": ("liter per minute", "liters per minute"),
    "gal": ("gallon", "gallons"),
    "tsp": ("teaspoon", "teaspoons"),
    "tbsp": ("tablespoon", "tablespoons"),
    "W": ("watt", "watts"),
    "kW": ("kilowatt", "kilowatts"),
    "MW": ("megawatt", "megawatts"),
    "GW": ("gigawatt", "gigawatts"),
    "Wh": ("watt hour", "watt hours"),
    "kWh": ("kilowatt hour", "kilowatt hours"),
    "MWh": ("megawatt hour", "megawatt hours"),
    "W/m^2": ("watt per square meter", "watts per square meter"),
    "VA": ("volt ampere", "volt amperes"),
    "V": ("volt", "volts"),
    "mV": ("millivolt", "millivolts"),
    "kV": ("kilovolt", "kilovolts"),
    "A": ("amp", "amps"),
    "mA": ("milliamp", "milliamps"),
    "Ah": ("amp hour", "amp hours"),
    "mAh": ("milliamp hour", "milliamp hours"),
    "Hz": ("hertz", "hertz"),
    "kHz": ("kilohertz", "kilohertz"),
    "MHz": ("megahertz", "megahertz"),
    "GHz": ("gigahertz", "gigahertz"),
    "rpm": ("revolution per minute", "revolutions per minute"),
    "bpm": ("beat per minute", "beats per minute"),
    "fps": ("frame per second", "frames per second"),
    "kB": ("kilobyte", "kilobytes"),
    "MB": ("megabyte", "megabytes"),
    "Mb": ("megabit", "megabits"),
    "GB": ("gigabyte", "gigabytes"),
    "TB": ("terabyte", "terabytes"),
    "MB/s": ("megabyte per second", "megabytes per second"),
    "Mb/s": ("megabit per second", "megabits per second"),
    "GB/s": ("gigabyte per second", "gigabytes per second"),
    "kbps": ("kilobit per second", "kilobits per second"),
    "Mbps": ("megabit per second", "megabits per second"),
    "Mbit/s": ("megabit per second", "megabits per second"),
    "Gbps": ("gigabit per second", "gigabits per second"),
    "h": ("hour", "hours"),
    "hr": ("hour", "hours"),
    "hrs": ("hour", "hours"),
    "min": ("minute", "minutes"),
    "mins": ("minute", "minutes"),
    "s": ("second", "seconds"),
    "sec": ("second", "seconds"),
    "secs": ("second", "seconds"),
    "ms": ("millisecond", "milliseconds"),
    "μs": ("microsecond", "microseconds"),
    "ns": ("nanosecond", "nanoseconds"),
    "wk": ("week", "weeks"),
    "wks": ("week", "weeks"),
    "yr": ("year", "years"),
    "yrs": ("year", "years"),
    "°": ("degree", "degrees"),
    "°C": ("degree Celsius", "degrees Celsius"),
    "° C": ("degree Celsius", "degrees Celsius"),
    "°F": ("degree Fahrenheit", "degrees Fahrenheit"),
    "° F": ("degree Fahrenheit", "degrees Fahrenheit"),
    "C": ("degree Celsius", "degrees Celsius"),
    "F": ("degree Fahrenheit", "degrees Fahrenheit"),
    "μg/m^3": ("microgram per cubic meter", "micrograms per cubic meter"),
    "μg/m3": ("microgram per cubic meter", "micrograms per cubic meter"),
    "mg/m^3": ("milligram per cubic meter", "milligrams per cubic meter"),
    "g/m^3": ("gram per cubic meter", "grams per cubic meter"),
    "mg/l": ("milligram per liter", "milligrams per liter"),
    "ppm": ("part per million", "parts per million"),
    "ppb": ("part per billion", "parts per billion"),
    "dB": ("decibel", "decibels"),
    "dBA": ("decibel", "decibels"),
    "dBm": ("decibel milliwatt", "decibel milliwatts"),
    "Pa": ("pascal", "pascals"),
    "hPa": ("hectopascal", "hectopascals"),
    "kPa": ("kilopascal", "kilopascals"),
    "mbar": ("millibar", "millibars"),
    "bar": ("bar", "bars"),
    "psi": ("pound per square inch", "pounds per square inch"),
    "lx": ("lux", "lux"),
    "lux": ("lux", "lux"),
    "lm": ("lumen", "lumens"),
    "kcal": ("kilocalorie", "kilocalories"),
    "%": ("percent", "percent"),
    "px": ("pixel", "pixels"),
}

CURRENCIES: dict[str, tuple[str, str, str, str]] = {
    # symbol or code: (one, many, one hundredth, hundredths)
    "$": ("dollar", "dollars", "cent", "cents"),
    "£": ("pound", "pounds", "penny", "pence"),
    "€": ("euro", "euros", "cent", "cents"),
    "¥": ("yen", "yen", "sen", "sen"),
    "₹": ("rupee", "rupees", "paisa", "paise"),
    "USD": ("dollar", "dollars", "cent", "cents"),
    "EUR": ("euro", "euros", "cent", "cents"),
    "GBP": ("pound", "pounds", "penny", "pence"),
    "JPY": ("yen", "yen", "sen", "sen"),
    "CHF": ("franc", "francs", "centime", "centimes"),
}

SCALES: dict[str, str] = {
    "k": "thousand",
    "K": "thousand",
    "m": "million",
    "M": "million",
    "bn": "billion",
    "B": "billion",
    "thousand": "thousand",
    "million": "million",
    "billion": "billion",
    "trillion": "trillion",
}

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
    "ms": "miss",
    "dr": "doctor",
    "prof": "professor",
    "rev": "reverend",
    "gen": "general",
    "capt": "captain",
    "lt": "lieutenant",
    "sgt": "sergeant",
}

ABBREVIATIONS: dict[str, str] = {
    # with a dot after them; an inner dot may be left out
    "e.g": "for example",
    "i.e": "that is",
    "etc": "et cetera",
    "vs": "versus",
    "approx": "approximately",
    "ave": "avenue",
    "rd": "road",
    "blvd": "boulevard",
    "apt": "apartment",
    "bldg": "building",
    "dept": "department",
    "min": "minimum",
    "max": "maximum",
    "avg": "average",
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

CALENDAR = frozenset(
    {*(name.lower() for name in (*WEEKDAYS.values(), *MONTHS.values())), *WEEKDAYS, *MONTHS}
    | {"tues", "thur", "thurs", "sept"}
)
"""Names of days and months, whole and cut."""

STREET = r"(?<=[^.!?]\s)(?!(?:Mount|Mt|Lake|Port|Fort|Sault)\s)((?:[A-Z][a-z]{1,30}|[0-9]{1,3}(?:st|nd|rd|th))\s)St"
"""Regex of a street's name; St without one is a saint's."""

CODE_WORDS = (
    "bus|gate|platform|seat|room|row|unit|terminal|section|zone|line|house|exit|track|apartment|apt|flat|suite|tram|"
    "stop|door|block|class"
)
"""A number with a letter after one of these (12C) is a name, not an amount."""

NEVER_END = frozenset({*TITLES, "e.g", "i.e", "eg", "ie", "vs", "approx", "st", "ext", "tel", "fig"})
"""Abbreviations after whose dot the sentence goes on, whatever follows."""

MAY_END = frozenset({*ABBREVIATIONS, "a.m", "p.m", "am", "pm", "co", "jun", "jul", "mar", "sat", "sun"}) - NEVER_END
"""Abbreviations whose dot ends the sentence only where a capital follows."""

TOP_LEVEL_DOMAINS = "com|org|net|edu|gov|info|io|dev|app|eu|uk|de|fr|nl|ch|ca|au|local|lan"
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
    "∞": "infinity",
}
