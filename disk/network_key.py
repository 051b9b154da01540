"""The files of a private network: the key that a person gave, the one that is kept, and a node's own lasting key.

Each is for its owner's eyes only (mode 0600): one that others of this machine may read is refused, with the command
that mends it. On Windows, which has no such modes, a folder of the user's own protects it. Called at the start only.
"""

from __future__ import annotations

import codecs
import contextlib
import errno
import os
import stat
from typing import Callable, NamedTuple, Optional

from disk.access import open_regular, read_at, write_anew
from disk.shelf import make_private
from protocol.content.names import HIDDEN
from protocol.content.troubles import shown
from protocol.credentials import KEY_FILE, Credentials, KeyTrouble, KeyWish
from protocol.keys.curve import ORDER
from protocol.keys.phrase import PHRASE_BYTES_MAX, typed_key

NO_SSL = ("This Python has no ssl module, so it cannot keep a network private. Another one can; without a key this one "
          "does as well.")
IDENTITY_HEAD = "lab-share identity 1 "


class NetworkKey(NamedTuple):
    """The key of a private network, and what was made of it."""

    phrase: str
    credentials: Credentials
    folder: str                     # for whose nodes it is kept

    def __repr__(self) -> str:
        return f"NetworkKey(check {self.credentials.check_code})"

    def keep(self) -> str:
        """Keeps it for the next start; what a person reads of that."""
        path = shown(kept_at(self.folder), 1000)
        if keep(self.folder, self.phrase):
            return f"* the key is kept in {path}, for you alone; --no-key forgets it"
        return f"* the key cannot be kept in {path}: --ask-key asks for it again next time"


def key_of(wish: KeyWish) -> Optional[NetworkKey]:
    """The key that is meant, None for an open network; KeyTrouble says why it cannot be used."""
    if wish.is_open:
        if wish.is_forgotten:
            forget(wish.folder)
        return None
    said = wish.typed
    if not said and not wish.file and not os.path.lexists(kept_at(wish.folder)):
        raise KeyTrouble("--identity is for a network with a key, and none is named.")
    phrase = typed_key(said or key_in(wish.file or kept_at(wish.folder)))
    try:
        from disk.credentials import credentials_of, new_private
    except ImportError:
        raise KeyTrouble(NO_SSL) from None
    private = identity_in(wish.identity, new_private) if wish.identity else None
    return NetworkKey(phrase, credentials_of(phrase, private), wish.folder)


def key_in(path: str) -> str:
    """What a file says, to be checked by `typed_key`; KeyTrouble with a sentence."""
    return _read(path, "key")


def kept_at(folder: str) -> str:
    """Where the key is kept for the nodes of a folder."""
    return os.path.join(folder, HIDDEN, KEY_FILE)


def keep(folder: str, key: str) -> bool:
    """Keeps it for the next start; False when that cannot be done."""
    try:
        make_private(os.path.join(folder, HIDDEN))
        _write(kept_at(folder), key)
    except OSError:
        return False
    return True


def forget(folder: str) -> None:
    """None is kept any more; KeyTrouble where it cannot be removed."""
    try:
        os.unlink(kept_at(folder))
    except FileNotFoundError:
        pass
    except OSError as error:
        raise _cannot("removed", kept_at(folder), "key", error) from None


def identity_in(path: str, new: Callable[[], int]) -> int:
    """A node's lasting private key; `new()` is written where there is no file yet. KeyTrouble with a sentence."""
    if not os.path.lexists(path):
        private = new()
        try:
            _write(path, f"{IDENTITY_HEAD}{private:064x}")
        except OSError as error:
            raise _cannot("written", path, "identity", error) from None
        return private
    said = _read(path, "identity")
    with contextlib.suppress(ValueError):
        private = int(said[len(IDENTITY_HEAD):], 16)
        if said.startswith(IDENTITY_HEAD) and 1 <= private < ORDER:
            return private
    raise KeyTrouble(f"{shown(path, 1000)} holds no identity of this program: name a file that is not there yet.")


def _read(path: str, what: str) -> str:
    """A key or an identity from a file that nobody else can get at; KeyTrouble says why not."""
    try:
        descriptor = open_regular(path)
    except OSError as error:
        raise _cannot("read", path, what, error) from None
    try:
        mode = os.fstat(descriptor).st_mode
        if os.name != "nt" and mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise KeyTrouble(f"Others on this machine can get at the {what} in {shown(path, 1000)}: "
                             f"chmod 600 {_quoted(path)}")
        data = read_at(descriptor, PHRASE_BYTES_MAX + 2, 0)
    except OSError as error:
        raise _cannot("read", path, what, error) from None
    finally:
        os.close(descriptor)
    try:
        is_wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))  # as `>` writes in PowerShell
        return data.decode("utf-16" if is_wide else "utf-8-sig").strip()       # some editors put a mark before it
    except UnicodeDecodeError:
        raise KeyTrouble(f"{shown(path, 1000)} holds no {what}: it is no text in UTF-8.") from None


def _write(path: str, line: str) -> None:
    """All of it or nothing, and readable by nobody else at any moment."""
    write_anew(path, f"{line}\n".encode(), is_flushed=True, is_secret=True)


def _cannot(do: str, path: str, what: str, error: OSError) -> KeyTrouble:
    why = (error.strerror or "refused").lower()
    if error.errno in (errno.ELOOP, errno.EINVAL):  # <(...) of a shell is a link to a pipe
        why = "it is a link, a folder, a pipe or a device; name the file itself"
    return KeyTrouble(f"The {what} in {shown(path, 1000)} cannot be {do}: {why}.")


def _quoted(path: str) -> str:
    import shlex
    return shlex.quote(shown(path, 1000)[1:-1])
