"""The commands of the prompt: their words, their help, and what a typed line names."""

from __future__ import annotations

from typing import Callable, List, NamedTuple, Optional, Tuple

from prompt.console import Console
from prompt.table import help_table, wrapped
from protocol.looks import safe_text


class Command(NamedTuple):
    """One line of the help, and what does it with the words behind the command."""
    words: Tuple[str, ...]          # the letter first, then its aliases
    usage: str
    does: str
    example: str
    run: Callable[[Console, str], None]
    more: str = ""                  # what there is no room for on the one screen
    stands_alone: bool = False      # nothing may follow it


def show_help(console: Console, what: str) -> None:
    """?: one screen, or one command with an example."""
    word = what.split()[0] if what else ""
    if word and word.lower() not in BY_WORD:
        console.refuse(unknown_line(word))
        return
    for line in help_lines(word, console.width()):
        console.say(line)


COMMANDS = (
    Command(("G", "list", "files", "ls"), "G [pattern], G +", "list the files of the network; more of it", "G *.pdf",
            Console.list_files),
    Command(("R", "get", "fetch", "download"), "R name, R 2 5-7", "fetch files or folders, R *.pdf too", "R lab.iso",
            Console.fetch),
    Command(("T", "say", "chat", "talk"), "T text", "chat with everyone", "T hello everyone", Console.chat),
    Command(("P", "tell", "whisper", "private"), "P name text", "say it to one member alone", "P ana see you at 5",
            Console.whisper),
    Command(("B", "share"), "B path, B", "share a path; list what I share", "B ~/talks/intro.pdf", Console.share),
    Command(("U", "unshare"), "U name", "share it no longer", "U intro.pdf", Console.unshare),
    Command(("W", "who"), "W", "who is here", "W", Console.who,
            stands_alone=True),
    Command(("V", "transfers", "view"), "V", "transfers: state, percent, rate, time left", "V", Console.view,
            "and their sources, each with its share, round trip, window and loss; then what lies half here", True),
    Command(("K", "cancel", "kill"), "K number", "cancel a transfer; what is verified stays", "K 1", Console.cancel),
    Command(("M", "mesh"), "M on, M off, M", "links to all, or only to the supernode", "M off", Console.mesh),
    Command(("L", "limit", "limits"), "L, L up 5M, L off", "how fast files may go and come", "L down 20M",
            Console.limit),
    Command(("C", "connect", "join"), "C port, C ip port", "go to the supernode there", "C 10.0.0.7:6020",
            Console.connect, "this network is left once that one has taken you in; Ctrl-C while it is tried stays"),
    Command(("D", "doctor", "check"), "D", "what is wrong here, and what to do", "D", Console.doctor,
            "open or private, addresses, port, firewall, who got in, path, disk and clock: !! is a trouble", True),
    Command(("?", "H", "help"), "?, H, H R", "this list; an example for one command", "H R", show_help),
    Command(("Q", "quit", "exit", "bye"), "Q", "quit; hands over if supernode", "Q", Console.quit,
            stands_alone=True),
)
BY_WORD = {word.lower(): command for command in COMMANDS for word in command.words}
LETTERS = {word: command.words[0] for word, command in BY_WORD.items()}
SAYING = ("T", "P")             # what follows these is a text
# What people type who come from other programs, and no spelling is near.
HINTS = {"x": "R", "dir": "G", "find": "G", "search": "G", "send": "B", "upload": "B", "add": "B",
         "msg": "T", "users": "W", "nodes": "W", "peers": "W", "stop": "K", "abort": "K", "leave": "Q", "open": "C"}


def parse_command(line: str) -> Tuple[Optional[Command], str]:
    """The command that a line names, or None, and what follows it."""
    word, rest = (line.split(None, 1) + ["", ""])[:2]   # at any blank, be it a tab or as wide as a character of Chinese
    return BY_WORD.get(word.lower()), rest.strip()


def letter_of(line: str) -> str:
    """The letter of the command that a line names; its first word where it names none."""
    word = line.split()[0]
    return LETTERS.get(word.lower(), word.upper())


def unknown_line(line: str) -> str:
    """What is said about a line that names no command."""
    import difflib  # slow to load, and rarely needed
    word = line.split()[0]
    near = difflib.get_close_matches(word.lower(), list(BY_WORD) + list(HINTS), 1, 0.7)
    letter = (HINTS.get(near[0]) or BY_WORD[near[0]].words[0]) if near else None
    guess = f" Did you mean {letter}?" if letter else ""
    return f'Unknown: "{safe_text(word, 40)}".{guess} (? for help)'


def stray_line(line: str) -> str:
    """What is said about a line whose command would be done without what follows it there."""
    return (f'{letter_of(line)} stands alone; "{safe_text(line.split(None, 1)[1].strip(), 40)}" after it was not '
            "understood, and nothing was done.")


def help_lines(what: str = "", columns: Optional[int] = None) -> List[str]:
    """One screen of help, or one command with an example; wrapped at words where the window is narrow."""
    command = BY_WORD.get(what.lower())
    if command:
        told = [f"{command.usage}   {command.does}", f"  for example: {command.example}", f"  {command.more}",
                f"  also: {', '.join(command.words[1:])}" if command.words[1:] else "  no other word"]
        return [row for line in told if line.strip() for row in wrapped(line, columns or len(line))]
    if what:
        return [unknown_line(what)]
    return help_table([(command.usage, command.does, f"({command.words[1]})" if len(command.words) > 1 else "")
                       for command in COMMANDS], columns)
