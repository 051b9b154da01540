"""The network key as people have it: how it is made, read aloud, typed and stretched.

A key that was made here has 130 random bits: 26 characters of base32 (RFC 4648, section 6), in lower case, and four
more that show a slip of who types them, in six groups of five. A phrase of one's own will do, too, if it is long.
"""

from __future__ import annotations

import hashlib
import random
import re
import unicodedata
from typing import NamedTuple

from protocol.credentials import SEAL_KEY_SIZE, KeyTrouble
from protocol.keys.curve import ORDER

ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"       # five bits a character
RANDOM_LENGTH, CHECK_LENGTH, GROUP = 26, 4, 5
LOOKALIKES = str.maketrans("018", "olb")            # digits that the alphabet leaves out: a letter was meant
NEARLY_MADE = re.compile(r"[a-z2-7]{4,6}(-[a-z2-7]{4,6}){4,6}")

PHRASE_LENGTH_MIN = 16
PHRASE_BYTES_MAX = 1024                             # longer is no key, but a file that was given by mistake

SALT = b"lab-share netkey 1\0"
COST, BLOCK_SIZE, LANES = 2**16, 8, 1               # of scrypt (RFC 7914): 0.2 s and 64 MiB for each guess
MEMORY_MAX = 160 << 20                              # else OpenSSL refuses more than 32 MiB
AUTHORITY_SIZE = 48                                 # modulo an order of 32 bytes: without a bias that matters
CODE_SIZE = 2

TOO_SHORT = (f"A key has at least {PHRASE_LENGTH_MIN} characters. The best one is made by --new-key: "
             "a phrase of one's own can be guessed by whoever records one packet.")
SLIPPED = "This looks like a key of --new-key with a slip in it: compare it group by group."


class Stretched(NamedTuple):
    """What scrypt makes of a key."""
    seal_key: bytes
    authority: int                  # the private key of the network's certificate authority
    check_code: str


def new_key(rng: random.Random) -> str:
    """A key that can be read aloud, as it is printed: `abcde-fghij-...`."""
    value = rng.getrandbits(5 * RANDOM_LENGTH)
    return _grouped(_with_check(_characters(value, RANDOM_LENGTH)))


def typed_key(text: str) -> str:
    """What was meant: of a made key its printed form, else the text itself in one form; KeyTrouble with a sentence."""
    phrase = unicodedata.normalize("NFKC", text).strip()
    if not phrase:
        raise KeyTrouble("The key is empty.")
    if len(_bytes_of(phrase)) > PHRASE_BYTES_MAX:
        raise KeyTrouble(f"That is no key: it is longer than {PHRASE_BYTES_MAX} bytes.")
    if not phrase.isprintable():
        raise KeyTrouble("A key is one line of visible characters.")
    lower = phrase.lower().translate(LOOKALIKES)
    made = re.sub(r"[ -]", "", lower)
    if _is_made(made):
        return _grouped(made)
    if NEARLY_MADE.fullmatch(lower):
        raise KeyTrouble(SLIPPED)
    if len(phrase) < PHRASE_LENGTH_MIN:
        raise KeyTrouble(TOO_SHORT)
    return phrase


def stretched(phrase: str) -> Stretched:
    """What a `typed_key` is stretched to: takes 0.2 s and 64 MiB. ValueError or MemoryError where that is refused."""
    return parted(_scrypt(phrase.encode("utf-8")))


def parted(raw: bytes) -> Stretched:
    """The parts of what scrypt gave."""
    seal_key, rest = raw[:SEAL_KEY_SIZE], raw[SEAL_KEY_SIZE:]
    authority = 1 + int.from_bytes(rest[:AUTHORITY_SIZE], "big") % (ORDER - 1)
    return Stretched(seal_key, authority, rest[AUTHORITY_SIZE:AUTHORITY_SIZE + CODE_SIZE].hex())


def _scrypt(secret: bytes) -> bytes:
    return hashlib.scrypt(secret, salt=SALT, n=COST, r=BLOCK_SIZE, p=LANES, maxmem=MEMORY_MAX,
                          dklen=SEAL_KEY_SIZE + AUTHORITY_SIZE + CODE_SIZE)


def _bytes_of(phrase: str) -> bytes:
    try:
        return phrase.encode("utf-8")
    except UnicodeEncodeError:
        raise KeyTrouble("The key is no text in UTF-8.") from None


def _characters(value: int, count: int) -> str:
    return "".join(ALPHABET[value >> 5 * place & 31] for place in range(count))


def _with_check(secret: str) -> str:
    digest = hashlib.sha256(b"lab-share key " + secret.encode("ascii")).digest()
    return secret + _characters(int.from_bytes(digest[:3], "big"), CHECK_LENGTH)


def _is_made(text: str) -> bool:
    return re.fullmatch(r"[a-z2-7]+", text) is not None and text == _with_check(text[:RANDOM_LENGTH])


def _grouped(text: str) -> str:
    return "-".join(text[start:start + GROUP] for start in range(0, len(text), GROUP))
