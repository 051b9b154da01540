"""The network key as a person says it: by a file, by the environment, or typed without echo. Never on a command line.

What is meant is a `KeyWish`; the node makes of it what it needs (`open_node`, node_client.py).
"""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any, MutableMapping, NoReturn, Optional

from protocol.credentials import KeyWish

VARIABLE = "LAB_SHARE_KEY"
OPEN_NETWORK = ("OPEN NETWORK (no key): anyone on this LAN can join, read chat and files, and pretend to be you. "
                "'python node_client.py --new-key' makes it private.")
NO_ANSWER = "no answer with this key (wrong key, old version, firewall, or nobody there)"
NO_NETWORK = ("There is no network with this key here. The first one is opened by share, or by the program without "
              "such a word.")
KEY_WANTED = "This network is private, it wants a key: --ask-key asks for it, --key-file FILE reads it."
KEY_ASKED = "This network is private: it wants a key."
NOBODY_TO_ASK = "--ask-key asks at a terminal, and this is none: --key-file FILE reads the key, and so does " + VARIABLE
SEEN = ("a key on the command line can be read by everybody on this machine, so it is asked for (--ask-key) or read "
        "from a file (--key-file FILE). If this was one, make a new one: --new-key")
KEY_QUESTION = "Key (not shown): "
KEY_AGAIN = "Key again (not shown; Enter: another place): "
KEY_HELP = ("The network's key, as --new-key printed it: six groups of five, of which hyphens and capitals do not "
            "matter; or the phrase that its members agreed on. It is not shown while you type. q ends the program.",)
AFTER_NEW_KEY = """\
This is the key of a network of your own. Tell it to those who may join, by voice or on paper. Each of you then starts
with --ask-key once, types it, and compares the four digits of "check" on the screens."""


def print_new_key() -> int:
    """A new key for a person, or alone for a file; the exit code."""
    import random

    from protocol.keys.phrase import new_key
    print(new_key(random.SystemRandom()))
    if sys.stdout is not None and sys.stdout.isatty():
        print(AFTER_NEW_KEY)
    return 0


class _Trap(argparse.Action):
    """`--key`: what would be a key there has been seen."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        parser.error(SEEN)


def add_flags(parser: argparse.ArgumentParser, none: Any) -> None:
    """Those of the prompt and of the one-line forms alike."""
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--ask-key", action="store_true", default=none or False,
                       help="ask for the key (also --new-key, --key-file FILE, --no-key)")
    hidden = {"default": none, "help": argparse.SUPPRESS}   # the help is one screen; the README has them all
    which.add_argument("--key-file", metavar="FILE", **hidden)
    which.add_argument("--no-key", action="store_true", default=none or False, help=argparse.SUPPRESS)
    which.add_argument("--key", nargs="?", action=_Trap, **hidden)
    parser.add_argument("--identity", metavar="FILE", **hidden)


def from_environment(environ: Optional[MutableMapping[str, str]] = None) -> str:
    """The key that stands there; it is taken away, so that no program started by this one gets it."""
    return (os.environ if environ is None else environ).pop(VARIABLE, "")


def wish_of(flags: argparse.Namespace, folder: str, typed: str = "") -> KeyWish:
    """What the flags say, and a person who was asked, and the environment (`from_environment`)."""
    file = getattr(flags, "key_file", None) or ""
    identity = getattr(flags, "identity", None) or ""
    if typed:                           # also behind --no-key, when the network that was found wants one
        return KeyWish(typed, True, identity=identity, folder=folder)
    if getattr(flags, "no_key", False):
        return KeyWish(is_open=True, is_forgotten=not flags.verb, folder=folder)
    in_environment = "" if file else getattr(flags, "environment_key", "")
    return KeyWish(in_environment, file=file, identity=identity, folder=folder)


def start_line(check_code: str, whose: str) -> str:
    """What a person reads at each start; the code is empty where the network is open."""
    return f"* {whose}'s network (private, check {check_code})" if check_code else OPEN_NETWORK


def no_answer(where: str) -> str:
    """No network with this key is there."""
    return f"{where}: {NO_ANSWER}."


def other_line(place: str) -> str:
    """There is a network with a key, and this node is elsewhere."""
    return f"the network at {place} is private: it wants a key (--ask-key asks for it)"


def other_key_line(name: str) -> str:
    """Somebody of this name has another lasting key than who was called so before."""
    return f"{name} has a NEW key: ask {name} by another way whether that is so; until then it may be somebody else"


def short_fingerprint(fingerprint: bytes) -> str:
    """So much of it as two persons compare: `9f3c-11ab`."""
    digits = fingerprint.hex()[:8]
    return f"{digits[:4]}-{digits[4:]}"

