"""Names of shared things: which are allowed on every system, and when two are the same.

A name from another node is refused or used as it stands, never repaired.
"""

from __future__ import annotations

import re
import unicodedata

from protocol.content.troubles import BadName, shown

NAME_BYTES_MAX = 1024
COMPONENT_BYTES_MAX = 240      # the file system's 255, less room for " (2)" and the like
COMPONENTS_MAX = 16
HIDDEN = ".node"               # the node's own folder, and the start of its temporary names

# Refused on every system, so that a folder is the same everywhere (and `C:x` or `a:stream` mean nothing on Windows).
_FORBIDDEN_CHARACTERS = frozenset(':\\<>"|?*')
# Controls, format and bidi controls, surrogates, line ends; private use, because WSL and SMB map ":" and "\" there.
_FORBIDDEN_CATEGORIES = frozenset(("Cc", "Cf", "Cs", "Co", "Zl", "Zp"))
_DEVICE = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³]) *(\.|$)", re.IGNORECASE)
_SHORT_HIDDEN = re.compile(r"node~[0-9]")   # what Windows may call `.node` in its 8.3 form

# What nearly every name looks like: no need to look at it part by part. A device's name is looked at closer.
_PLAIN_PART = r"(?!con|prn|aux|nul|com|lpt|node~)[a-z0-9_()+-]+(?:[. ][a-z0-9_()+-]+)*"
_PLAIN = re.compile(f"{_PLAIN_PART}(?:/{_PLAIN_PART}){{0,{COMPONENTS_MAX - 1}}}", re.IGNORECASE | re.ASCII)


def check_name(name: str) -> str:
    """Return a name from another node (a relative path with `/`) as it is, or raise `BadName`: it is never repaired."""
    if not isinstance(name, str) or not name:
        raise BadName("An empty name is refused.")
    fault = _name_fault(name)
    if fault:
        raise BadName(f"The name {shown(name)} is refused: {fault}.", "long" in fault)
    return name


def _name_fault(name: str) -> str:
    if len(name) <= COMPONENT_BYTES_MAX and _PLAIN.fullmatch(name):
        return ""
    if len(name) > NAME_BYTES_MAX:
        return "it is too long"
    try:
        size = len(name.encode("utf-8"))
    except UnicodeEncodeError:
        return "it is not valid Unicode"
    components = name.split("/")
    if size > NAME_BYTES_MAX or len(components) > COMPONENTS_MAX:
        return "it is too long"
    return next(filter(None, map(_component_fault, components)), "")


def _component_fault(component: str) -> str:
    if component in ("", ".", ".."):
        return "it does not stay inside the folder"
    if len(component.encode("utf-8")) > COMPONENT_BYTES_MAX:
        return f"a part of it is longer than {COMPONENT_BYTES_MAX} bytes"
    if not _FORBIDDEN_CHARACTERS.isdisjoint(component):
        return "it holds a character that some systems do not allow"
    if not (component.isascii() and component.isprintable()) and _has_hidden_characters(component):
        return "it holds control or invisible characters"
    if component[-1] in ". ":
        return "a part of it ends in a dot or a space"
    if _DEVICE.match(component):
        return "it is a device name on Windows"
    folded = component.casefold()
    if folded.startswith(HIDDEN) or _SHORT_HIDDEN.match(folded):
        return "it belongs to the node itself"
    return ""


def _has_hidden_characters(text: str) -> bool:
    return any(unicodedata.category(character) in _FORBIDDEN_CATEGORIES for character in text)


def fold(name: str) -> str:
    """The form in which names are one file on systems that ignore case and Unicode form."""
    if name.isascii():
        return name.lower()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
