"""What flags and questions may say, and how the program ends."""

from __future__ import annotations

import argparse
import contextlib
import functools
import getpass
import socket
from typing import Any, Callable, NamedTuple, Optional, Sequence, Tuple

from prompt import arguments, network_key
from prompt.where import DEFAULT_PORT, check_ip, check_place, check_port, check_targets
from protocol.credentials import KeyWish
from protocol.looks import safe_text

__all__ = ["DEFAULT_PORT", "NodeError", "Settings", "check_ip", "check_name", "check_port", "check_targets",
           "parse_flags"]

DEFAULT_FOLDER = "shared"
NAME_LENGTH_MAX = 32                # what the wire carries

EXIT_OK, EXIT_FAILED, EXIT_FLAGS, EXIT_ADDRESS, EXIT_INTERRUPTED = 0, 1, 2, 3, 130
EXIT_NOT_FOUND, EXIT_INCOMPLETE = 4, 5      # of a one-shot only; piped commands end with EXIT_FAILED


class Settings(NamedTuple):
    """What flags or questions said."""
    ip: Optional[str]               # None: search this network
    port: int
    name: str
    folder: str
    is_folder_chosen: bool          # then another node's use of it is an error, not a reason for `shared-2`
    trace: str = ""                 # a file for what the transport does, packet by packet
    up: Optional[float] = None      # bytes of files that are sent in a second; None: no limit
    down: Optional[float] = None    # the same of what is fetched
    visit: Optional[Visit] = None   # what is different in a one-shot
    others: Tuple[str, ...] = ()    # more addresses of the machine at `ip`
    casts: bool = True              # may this node send to many at once, and take such a send?
    key: KeyWish = KeyWish()        # what was said about the network's key


class Visit(NamedTuple):
    """A node that is there for one thing (prompt/oneshot.py)."""
    may_found: bool                 # else it founds no network and takes none over
    is_sharing: bool                # else nothing of it is announced
    hidden: str = ""                # the folder for its state, in `folder`; else the usual one
    scans: str = ""                 # a folder to look at in place of `folder`
    takes_port: bool = False        # though it founds none: at the port that others know, if that is free


def default_name() -> str:
    """`user@host`, as far as this machine tells them."""
    user, host = "node", "lab"
    with contextlib.suppress(Exception):        # no such user: KeyError, OSError or ImportError, by version and system
        user = getpass.getuser()
    with contextlib.suppress(OSError):
        host = socket.gethostname().split(".")[0] or host
    kept = "".join(c for c in f"{user}@{host}" if c not in "<>" and safe_text(c) == c)
    return kept[:NAME_LENGTH_MAX] or "node"


def check_name(text: str) -> str:
    """A name of 1 to 32 visible characters, the default for none; ValueError with a sentence."""
    if not text:
        return default_name()
    text = text.strip()
    if not text or len(text) > NAME_LENGTH_MAX:
        raise ValueError(f"A name has 1 to {NAME_LENGTH_MAX} characters.")
    if safe_text(text) != text or "<" in text or ">" in text:
        raise ValueError("A name has only visible characters, without < and >.")
    return text


def _flag(check: Callable[[str], Any]) -> Callable[[str], Any]:
    @functools.wraps(check)
    def checked(text: str) -> Any:
        try:
            return check(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None
    return checked


def parse_flags(argv: Optional[Sequence[str]]) -> argparse.Namespace:
    """The command line; wrong flags end the program with exit code 2, as argparse does."""
    parser = argparse.ArgumentParser(
        prog=arguments.program(), usage=arguments.USAGE.format(arguments.program()), epilog=arguments.EPILOG,
        formatter_class=arguments.layout, add_help=False)
    parser.add_argument("-h", "--help", action="help", help=argparse.SUPPRESS)
    parser.add_argument("--new-key", action="store_true", help=argparse.SUPPRESS)
    _add_flags(parser, False, None)
    parser.add_argument("--folder", metavar="DIR",
                        help=f"for what is shared and what is fetched (default {DEFAULT_FOLDER})")
    parser.add_argument("--stay", action="store_true",
                        help="without a terminal: share on when the input has ended")
    parser.add_argument("--no-times", action="store_true", help="chat without the time, at a terminal")
    parser.add_argument("--bell", action="store_true", help="ring when your name is said")
    shared = argparse.ArgumentParser(add_help=False)
    _add_flags(shared, argparse.SUPPRESS, argparse.SUPPRESS)
    arguments.add_verbs(parser, shared)
    parser.set_defaults(environment_key=network_key.from_environment())
    flags = parser.parse_args(argv)
    if flags.verb and flags.ask_key:
        parser.error("--ask-key is for the prompt, which keeps the key; a one-line form reads it by --key-file FILE")
    if flags.verb and flags.folder:
        parser.error("--folder is for the prompt; get has --to DIR, and share needs none")
    flags.others = ()
    if flags.ip is not False:
        place, flags.ip, flags.others = flags.ip, flags.ip.ip, flags.ip.others
        if place.port and flags.port and place.port != flags.port:
            parser.error(f"--ip names port {place.port}, and --port {flags.port}.")
        flags.port = flags.port or place.port
    return flags


def _add_flags(parser: argparse.ArgumentParser, no_ip: Any, none: Any) -> None:
    """Those of the prompt and of the one-line forms alike; `no_ip` and `none` stand for what is not said."""
    parser.add_argument("--ip", type=_flag(check_place), default=no_ip, metavar="IP",
                        help='where the network is (IP or IP:PORT); "" searches')
    parser.add_argument("--port", type=_flag(check_port), default=none, help=f"its UDP port (default {DEFAULT_PORT})")
    parser.add_argument("--name", type=_flag(check_name), default=none, help="how others see you (default user@host)")
    for way, does in (("--up", "send"), ("--down", "fetch")):
        parser.add_argument(way, type=_flag(arguments.check_limit), default=none, metavar="RATE",
                            help=f"{does} files no faster than this: {arguments.LIMIT_HELP}")
    parser.add_argument("--no-cast", action="store_true", default=none or False,
                        help="without multicast, which sends once to many")
    network_key.add_flags(parser, none)
    parser.add_argument("--log", metavar="FILE", default=none, help="write details here")
    parser.add_argument("--trace", metavar="FILE", default=none,
                        help="write every packet here, up to 64 MiB")


class NodeError(Exception):
    """The node cannot be opened: a sentence for a person, the exit code, and the questions to ask again.

    `hint` is the address of a network that was found meanwhile: the default of those questions.
    """

    def __init__(self, sentence: str, code: int = EXIT_ADDRESS, again: Sequence[str] = ("ip", "port"),
                 hint: Optional[Tuple[str, int]] = None) -> None:
        super().__init__(sentence)
        self.code, self.again, self.hint = code, again, hint
