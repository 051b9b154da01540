"""How text looks on a screen: what is drawn as nothing, which letters are taken for others, which names mix scripts.

For what a person sees, and for nothing else: a node is known by its id, a content by its digest. What a character is,
Unicode says itself (its category, its name, its compatible form); only which letters of one script look like those of
another does Python not know, so these are listed (after UTS #39 §4, as far as people write names with them). Pure.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from typing import List

CHAT_COLUMNS_MAX = 16384            # when every byte of it is shown as an escape
LABEL_COLUMNS_MAX = 48              # a name and its `~7f3a`
LABEL_END_COLUMNS = 18              # of these, for the end of a longer one: `~` and all the digits of an id fit
COMBINING_MARKS_MAX = 4             # in a row; more climb over the lines above

UNPRINTABLE = frozenset(("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"))  # categories
MARKS = frozenset(("Mn", "Me", "Mc"))
# Fillers, joiners and selectors are letters, marks or symbols by category; their names say that nothing is drawn.
_DRAWN_AS_NOTHING = frozenset(("FILLER", "BLANK", "JOINER", "SELECTOR", "INHERENT", "NULL", "INVISIBLE"))
_WORDS = re.compile("[ -]")
CACHED_MAX = 4096  # characters, and texts, whose looks are remembered

# The scripts that are in everyday use (UAX #31, table 5), as the names of their letters begin.
_EAST_ASIAN = frozenset(("CJK", "IDEOGRAPHIC", "HIRAGANA", "KATAKANA", "BOPOMOFO", "HANGUL"))
_EVERYDAY = _EAST_ASIAN | {
    "LATIN", "GREEK", "CYRILLIC", "ARMENIAN", "HEBREW", "ARABIC", "EXTENDED", "THAANA", "DEVANAGARI", "BENGALI",
    "GURMUKHI", "GUJARATI", "ORIYA", "TAMIL", "TELUGU", "KANNADA", "MALAYALAM", "SINHALA", "THAI", "LAO", "TIBETAN",
    "MYANMAR", "GEORGIAN", "ETHIOPIC", "KHMER",
}  # fmt: skip
_OF_ALL_SCRIPTS = frozenset(("MODIFIER", ""))  # apostrophes and the like

_LATIN = re.compile(r"LATIN (?:CAPITAL |(SMALL ))?LETTER (?:SMALL CAPITAL |DOTLESS |SCRIPT )*([A-Z])(?: WITH .*)?")
_ALIKE = {
    **str.maketrans("I1|0", "lllo"),
    **str.maketrans("\u223c\u301c\u2053\u02dc\u2212", "~~~~-"),
    **str.maketrans(  # Cyrillic
        "\u0410\u0412\u0415\u0405\u0406\u0408\u041a\u041c\u041d\u041e\u0420\u0421\u0422\u0423\u0425\u04ae\u050c\u051a"
        "\u051c\u04ba\u04c0\u042c\u0417\u0474\u0430\u0435\u043e\u0440\u0441\u0443\u0445\u0455\u0456\u0458\u04bb\u0501"
        "\u051b\u051d\u04cf\u043a\u043c\u043d\u0442\u0432\u0433\u043f\u0475\u04af\u044c\u0438\u0437",
        "ABESlJKMHOPCTYXYGQWhlb3Vaeopcyxsijhdqwlkmhtbrnvybu3",
    ),
    **str.maketrans(  # Greek
        "\u0391\u0392\u0395\u0396\u0397\u0399\u039a\u039c\u039d\u039f\u03a1\u03a4\u03a5\u03a7\u03f9\u037f\u03b1\u03b2"
        "\u03b3\u03b5\u03b7\u03b9\u03ba\u03bd\u03bf\u03c1\u03c4\u03c5\u03c7\u03f2\u03f3\u03c9\u03c3\u03bc",
        "ABEZHlKMNOPTYXCJabyenikvoptuxcjwou",
    ),
    **str.maketrans(  # Armenian
        "\u054d\u0555\u054f\u053c\u0585\u0578\u057d\u0570\u0581\u0566\u0584\u0575\u0561", "UOSLonuhgqpjw"
    ),
    **str.maketrans("\u0251\u0261\u0269\u028b", "agiv"),  # Latin of phoneticians
    **str.maketrans("\u05e1\u05d5\u05df\u0627\u0647\u0e50\u0ed0\u10ff", "ollloooo"),  # circles and strokes elsewhere
}


def safe_text(text: str, columns: int = 255) -> str:
    """Text from another node made harmless for a terminal: one line, nothing invisible, at most `columns` wide."""
    if text.isascii() and text.isprintable():
        return cut(text, columns)
    parts: List[str] = []
    marks = width = 0
    for character in text:
        is_mark = unicodedata.category(character) in MARKS
        if not is_drawn(character) or (is_mark and not parts):    # a mark would stand on what goes before the text
            character, is_mark = f"\\u{{{ord(character):x}}}", False
        marks = marks + 1 if is_mark else 0
        if marks > COMBINING_MARKS_MAX:
            continue
        width += text_width(character)
        if width > columns:
            return cut("".join(parts) + character, columns)
        parts.append(character)
    return "".join(parts)


@functools.lru_cache(CACHED_MAX)
def safe_label(label: str) -> str:
    """A node's name, made harmless; it cannot end its own `<...>` either, nor push out what tells it from others."""
    drawn = safe_text(label, CHAT_COLUMNS_MAX).replace("<", "\\u{3c}").replace(">", "\\u{3e}")
    if text_width(drawn) <= LABEL_COLUMNS_MAX:
        return drawn
    tail = len(drawn)
    while text_width(drawn[tail - 1:]) <= LABEL_END_COLUMNS:
        tail -= 1
    return cut(drawn, LABEL_COLUMNS_MAX - LABEL_END_COLUMNS) + drawn[tail:]


def text_width(text: str) -> int:
    """How many columns a terminal gives to printable text."""
    if text.isascii():
        return len(text)
    return sum(0 if unicodedata.category(c) in ("Mn", "Me") else 2 if unicodedata.east_asian_width(c) in "WF" else 1
               for c in text)


def cut(text: str, columns: int) -> str:
    """Text shortened to at most `columns`, with `...` where something is left out."""
    if text_width(text) <= columns:
        return text
    kept, width = [], 0
    for character in text:
        width += text_width(character)
        if width > columns - 3:
            break
        kept.append(character)
    return ("".join(kept) + "...")[:max(columns, 0)]


@functools.lru_cache(CACHED_MAX)
def is_drawn(character: str) -> bool:
    """Does a terminal draw this as something, and obey nothing that it says? (Spaces count as drawn.)"""
    if unicodedata.category(character) in UNPRINTABLE:
        return False
    return _DRAWN_AS_NOTHING.isdisjoint(_WORDS.split(unicodedata.name(character, "")))


@functools.lru_cache(CACHED_MAX)
def skeleton(text: str) -> str:
    """The form that texts share which can be taken for each other; "" for one of which nothing is drawn.

    It forgives more than an eye does (accents, spaces): who is told apart in vain only carries some digits more.
    """
    if text.isascii() and text.isprintable():
        alike = text.translate(_ALIKE).replace(" ", "").lower()
    else:
        parts = unicodedata.normalize("NFKD", text.translate(_ALIKE))
        drawn = (character for character in parts if is_drawn(character))
        alike = "".join(map(_model_of, drawn)).casefold()
    return alike.replace("rn", "m").replace("vv", "w")


@functools.lru_cache(CACHED_MAX)
def _model_of(character: str) -> str:
    """The ASCII character that this one looks like, or itself; nothing for marks and spaces."""
    category = unicodedata.category(character)
    if category in MARKS or character.isspace():
        return ""
    if category == "Pd":
        return "-"
    latin = None if character.isascii() else _LATIN.fullmatch(unicodedata.name(character, ""))
    if latin is not None:
        character = latin.group(2).lower() if latin.group(1) else latin.group(2)
    return character.translate(_ALIKE)


@functools.lru_cache(CACHED_MAX)
def is_of_one_script(text: str) -> bool:
    """Are its letters and digits of one script that is in everyday use? (Or Latin within one of East Asia.)"""
    scripts = {
        _script_of(character)
        for character in unicodedata.normalize("NFKC", text)
        if not (character.isascii() and character.isdecimal())
    }
    scripts -= _OF_ALL_SCRIPTS
    if scripts & _EAST_ASIAN:
        scripts -= _EAST_ASIAN | {"LATIN"}
        return not scripts
    return len(scripts) <= 1 and scripts <= _EVERYDAY


def _script_of(character: str) -> str:
    """The first word of a letter's or digit's name; "" for what belongs to no script."""
    if unicodedata.category(character)[0] not in "LN":
        return ""
    return _WORDS.split(unicodedata.name(character, "UNNAMED"))[0]
