"""Makes what a node of a private network has in its hands: certificates, and the contexts that OpenSSL reads them into.

OpenSSL reads them from a path only: here that is a file in memory where the system has such, else one that nobody else
may read and that is gone again at once. Nothing of it outlives the program. Any thread may call this; it takes 0.3 s.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import ssl
import tempfile
from typing import Iterator, Optional, Tuple

from protocol.credentials import Credentials, KeyTrouble
from protocol.keys import certificates, curve
from protocol.keys.phrase import Stretched, stretched

STEPS_MAX = 6                       # of each end in a handshake, which takes two
ELSEWHERE = "Python from python.org, Homebrew or your system's packages can; without a key this one does as well."


def credentials_of(phrase: str, private: Optional[int] = None) -> Credentials:
    """Those of a network key (`typed_key`); `private` is the node's own key, None: a new one.

    KeyTrouble where this Python cannot do it.
    """
    if not hasattr(hashlib, "scrypt"):
        raise unable("it has no scrypt, by which a key is hard to guess")
    if not ssl.HAS_TLSv1_3:
        raise unable("it has no TLS 1.3")
    try:
        return made_of(stretched(phrase), private)
    except ssl.SSLError as error:
        raise unable(f"it refuses our certificates ({error.reason})") from None
    except ValueError:                          # FIPS: OpenSSL leaves it out
        raise unable("the rules of this system (FIPS?) forbid scrypt") from None
    except MemoryError:
        raise KeyTrouble("There is too little memory for the key: it takes 64 MiB for a moment.") from None


def unable(why: str) -> KeyTrouble:
    """This Python will never do."""
    return KeyTrouble(f"This Python ({ssl.OPENSSL_VERSION}) cannot keep a network private: {why}. {ELSEWHERE}")


def made_of(key: Stretched, private: Optional[int] = None) -> Credentials:
    """The same of a stretched key; ssl.SSLError if OpenSSL finds the certificates wrong."""
    authority = certificates.authority_certificate(key.authority)
    own = certificates.node_certificate(key.authority, private or new_private())
    with _as_file(own.as_pem()) as path:
        server, client = (_context(role, authority, path)
                          for role in (ssl.PROTOCOL_TLS_SERVER, ssl.PROTOCOL_TLS_CLIENT))
    server.num_tickets = 0                      # nobody comes back by one
    credentials = Credentials(key.seal_key, key.check_code, server, client, own.fingerprint())
    try_out(credentials)
    return credentials


def new_private() -> int:
    """A new private key of P-256."""
    return random.SystemRandom().randrange(1, curve.ORDER)


def try_out(credentials: Credentials) -> None:
    """Has the node shake hands with itself, in memory; ssl.SSLError if that fails."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = (credentials.client_context.wrap_bio(to_client, to_server),
            credentials.server_context.wrap_bio(to_server, to_client, server_side=True))
    if not any(_are_done(*ends) for _ in range(STEPS_MAX)):
        raise ssl.SSLError("the handshake with itself came to no end")
    seen = {hashlib.sha256(end.getpeercert(binary_form=True) or b"").digest() for end in ends}
    assert seen == {credentials.fingerprint}


def _are_done(*ends: ssl.SSLObject) -> bool:
    """Each goes on as far as it can; are all done?"""
    return len([end for end in ends if _is_done(end)]) == len(ends)


def _is_done(end: ssl.SSLObject) -> bool:
    """Goes on with its handshake; is it done?"""
    try:
        end.do_handshake()
    except ssl.SSLWantReadError:
        return False
    return True


def _context(role: int, authority: bytes, path: str) -> ssl.SSLContext:
    """Trusts the network's own authority and no other: never `create_default_context`, which knows public ones."""
    context = ssl.SSLContext(role)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_verify_locations(cadata=authority)
    context.load_cert_chain(path)
    assert len(context.get_ca_certs(binary_form=True)) == 1
    return context


@contextlib.contextmanager
def _as_file(content: bytes) -> Iterator[str]:
    """A path under which it can be read, here and now."""
    descriptor, path, is_on_disk = _new_file()
    try:
        with open(descriptor, "wb", closefd=False) as file:
            file.write(content)
        yield path
    finally:
        os.close(descriptor)
        if is_on_disk:
            os.unlink(path)


def _new_file() -> Tuple[int, str, bool]:
    if hasattr(os, "memfd_create"):             # Linux
        with contextlib.suppress(OSError):
            descriptor = os.memfd_create("credentials")
            path = f"/proc/self/fd/{descriptor}"
            if os.path.exists(path):
                return descriptor, path, False
            os.close(descriptor)
    return (*tempfile.mkstemp(), True)          # mode 0600
