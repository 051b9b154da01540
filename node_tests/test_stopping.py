"""Ctrl-Z, `fg`, `bg` and `&` under a shell with job control, and a window whose size changes while a line is typed."""

from __future__ import annotations

import os
import signal
import struct

from node_tests.stage.fake_prompt import chat, transfer
from node_tests.stage.window import QUIET, Window, both_editors, needs_pty
from protocol.results import Joined, Progress

# A shell with job control that says how the terminal is set when the program has stopped, and goes on by `fg`.
STOPPED = 'stty -a | tr " ;" "\\n" | grep -x -e icanon -e -icanon -e echo -e -echo | tr "\\n" " "; echo; '
READ_AND_FG = 'read word; echo "the shell read $word"; fg >/dev/null'
UNDER_A_SHELL = ("sh", "-mc", f'"$@"; echo STOPPED; {STOPPED}{READ_AND_FG}', "sh")
# One that starts it in the background, and brings it to the front when a line is typed.
BEHIND_A_SHELL = ("sh", "-mc", f'"$@" & {READ_AND_FG}', "sh")
CTRL_Z = "\x1a"


@needs_pty
@both_editors
def test_ctrl_z_gives_the_terminal_back_and_fg_shows_the_line_that_was_being_typed(editor):
    with Window(80, *QUIET, "--no-times", editor=editor, before=UNDER_A_SHELL) as window:
        window.ready()
        window.tell(Progress(transfer()))
        window.type("T draft\x02\x02")
        # The terminal throws away what is typed and not read yet when Ctrl-Z comes: both keys have to be seen.
        window.until(lambda lines: lines[-1] == "> T draft" and lines[-2].startswith("R lab.iso")
                     and window.screen.cursor() == (len(lines) - 1, len("> T dra")))
        window.type(CTRL_Z)
        lines = window.until(lambda lines: "STOPPED" in lines and "icanon echo" in lines)
        assert "> T draft" not in lines and not any(line.startswith("R lab.iso") for line in lines)
        window.type("seen\r")
        window.shows("the shell read seen")
        window.until(lambda lines: lines[-1] == "> T draft" and lines[-2].startswith("R lab.iso")
                     and window.screen.cursor() == (len(lines) - 1, len("> T dra")))
        window.type("\x15")                                 # Ctrl-U clears what stands before the cursor
        window.until(lambda lines: lines[-1] == "> ft")
        window.tell(Joined("bo", 2))
        window.until(lambda lines: "* bo joined (2 nodes)" in lines and lines[-1] == "> ft")
        window.type("\x0b" + "Q\r")
        window.end()
        assert not any("draft" in line for line in window.screen.lines() if line.startswith("<me>"))


@needs_pty
@both_editors
def test_ctrl_z_works_and_news_are_shown_while_the_editor_waits_for_one_key_more(editor):
    """As readline does in a paste that has not ended, or when the terminal threw away the key that it was to read."""
    with Window(80, *QUIET, "--no-times", editor=editor, before=UNDER_A_SHELL) as window:
        window.ready()
        window.type("\x1b[200~pasted")
        window.tell(chat("bo", "hello"))
        window.until(lambda lines: "<bo> hello" in lines)
        window.type(CTRL_Z)
        window.until(lambda lines: "STOPPED" in lines and "icanon echo" in lines)
        window.type("seen\r")
        window.shows("the shell read seen")
        window.until(lambda lines: lines[-1] == ">")
        window.type(" text\x1b[201~")
        window.until(lambda lines: lines[-1].startswith("> ") and lines[-1].endswith(" text"))
        window.type("\x15" + "Q\r")
        window.end()


@needs_pty
@both_editors
def test_started_in_the_background_it_leaves_the_terminal_alone_until_fg(editor):
    with Window(80, *QUIET, "--no-times", editor=editor, before=BEHIND_A_SHELL) as window:
        window.until(lambda lines: "* in the background: fg brings the prompt" in lines
                     and any(line.startswith("* joined ana's network") for line in lines))
        window.tell(chat("bo", "hello"))
        lines = window.until(lambda lines: "<bo> hello" in lines)
        assert not any(line.startswith(">") for line in lines)
        window.type("this is the shell's\r")
        window.shows("the shell read this is the shell's")
        window.until(lambda lines: lines[-1] == ">")
        window.type("T now ours\r")
        window.shows("<me> now ours")
        window.type("Q\r")
        window.end()


@needs_pty
@both_editors
def test_what_was_stopped_by_a_signal_that_nobody_hears_sets_the_terminal_again(editor):
    import termios
    with Window(80, *QUIET, "--no-times", editor=editor) as window:
        window.ready()
        window.type("T hal")
        window.shows("> T hal")
        ours = termios.tcgetattr(window.master)[3]
        window.process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, window.process.pid, os.WSTOPPED | os.WNOWAIT)
        mode = termios.tcgetattr(window.master)
        mode[3] |= termios.ICANON | termios.ECHO            # as a shell does
        termios.tcsetattr(window.master, termios.TCSANOW, mode)
        window.process.send_signal(signal.SIGCONT)
        window.until(lambda lines: termios.tcgetattr(window.master)[3] == ours)
        window.type("f\r")
        window.shows("<me> half")


@needs_pty
@both_editors
def test_a_window_of_another_width_has_the_line_drawn_anew(editor):
    import fcntl
    import termios
    with Window(80, *QUIET, "--no-times", editor=editor) as window:
        window.ready()
        window.type("T " + "x" * 50)
        window.shows("x" * 50)
        window.screen.__init__(40)                          # what was there is gone with the window
        fcntl.ioctl(window.master, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 40, 0, 0))
        window.until(lambda lines: lines[-2:] == ["> T " + "x" * 36, "x" * 14])
