"""Names of shared things: which can be kept here, which on every system, and when two are the same.

A name from another node is refused or used as it stands, never repaired. `check_name` guards this machine's disk;
`check_any` tells what some system can keep, so that it is listed and passed on; `check_portable` what all can, and
earlier versions take. Whatever the system, no name leaves its folder, hides a character or belongs to the node.
"""

from __future__ import annotations

import re
import sys
import unicodedata

from protocol.content.troubles import BadName, shown

NAME_BYTES_MAX = 1024
COMPONENT_BYTES_MAX = 240      # the file system's 255, less room for " (2)" and the like
COMPONENTS_MAX = 64
PORTABLE_COMPONENTS_MAX = 16   # earlier versions take no more
HIDDEN = ".node"               # the node's own folder, and the start of its temporary names

IS_STRICT = sys.platform in ("win32", "cygwin")    # this system cannot keep what others can

# Refused on every system: what one takes for "/" another keeps as it is, on disks that both use.
_BACKSLASH = frozenset("\\")
# Refused where they mean something else (`C:x`, `a:stream`), or nothing.
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
    return _checked(name, IS_STRICT, COMPONENTS_MAX)


def check_any(name: str) -> str:
    """The same of a name that some machine can keep, be it not this one: it is told, shown, or kept in memory only."""
    return _checked(name, False, COMPONENTS_MAX)


def check_portable(name: str) -> str:
    """The same of a name that every system can keep, and every version takes."""
    return _checked(name, True, PORTABLE_COMPONENTS_MAX)


def is_portable(name: str) -> bool:
    """The same as an answer."""
    try:
        return bool(check_portable(name))
    except BadName:
        return False


def _checked(name: str, is_strict: bool, components_max: int) -> str:
    if not isinstance(name, str) or not name:
        raise BadName("An empty name is refused.")
    fault = _name_fault(name, is_strict, components_max)
    if fault:
        raise BadName(f"The name {shown(name)} is refused: {fault}.", "long" in fault)
    return name


def _name_fault(name: str, is_strict: bool, components_max: int) -> str:
    """What is wrong with a path below a shared folder, in words; nothing if it is allowed."""
    if len(name) <= COMPONENT_BYTES_MAX and name.count("/") < components_max and _PLAIN.fullmatch(name):
        return ""
    if len(name) > NAME_BYTES_MAX:
        return "it is too long"
    try:
        size = len(name.encode("utf-8"))
    except UnicodeEncodeError:
        return "it is not valid Unicode"
    components = name.split("/")
    if size > NAME_BYTES_MAX or len(components) > components_max:
        return "it is too long"
    return next(filter(None, (_component_fault(component, is_strict) for component in components)), "")


def _component_fault(component: str, is_strict: bool) -> str:
    """The same of one part between two slashes. With `is_strict` it must be allowed on every system."""
    if component in ("", ".", ".."):
        return "it does not stay inside the folder"
    if len(component.encode("utf-8")) > COMPONENT_BYTES_MAX:
        return f"a part of it is longer than {COMPONENT_BYTES_MAX} bytes"
    if not (_FORBIDDEN_CHARACTERS if is_strict else _BACKSLASH).isdisjoint(component):
        return "it holds a character that some systems do not allow"
    if not (component.isascii() and component.isprintable()) and _has_hidden_characters(component):
        return "it holds control or invisible characters"
    if is_strict and component[-1] in ". ":
        return "a part of it ends in a dot or a space"
    if is_strict and _DEVICE.match(component):
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
