"""How a supernode copes with a lecture hall: light members over real sockets of loopback around two real programs.

    python node_tests/bench/bench_members.py [--members N] [--phases join,idle,churn,shares,talk,rush,kill]
                                             [--files N] [--rates LINES,LINES] [--seconds S] [--markdown]

    join     all come at once: when all have the whole roster, what they were sent, and chat meanwhile
    idle     nobody does anything, once it is known who can be reached: share of a core; then ten lines of chat
    churn    one leaves and comes again: what that costs the supernode, and what all are told
    shares   each member announces so many files; then lists and searches
    talk     so many lines of chat a second, all members together
    rush     a tenth of them, and then all, ask for the same file at once: when has everybody an offer?
    kill     SIGKILL for the supernode: when is everybody with the next one?

The supernode (`ana`) and the second member (`bo`, who rules after it) are the program itself; chat is typed at bo, and
timed until it is on the screen there. All others are light members in one process (`light_members.py`). On Linux the
supernode has a core for itself if there are two. Nothing but loopback is used, nothing asserted: figures belong to the
machine, CPU seconds less than times.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import json
import os
import pathlib
import platform
import random
import re
import signal
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, Callable, Counter, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))

from node_tests.bench.bench_files import cpu_of
from node_tests.stage.running import Running, free_port, status_of

PATIENCE = 60.0  # seconds for an answer; a bound, not an expectation
CHAT_EVERY = 0.5  # seconds between two lines while something else goes on
LOOK_EVERY = 0.5  # seconds between two looks at the members
CALM = 0.33  # of a core: below it a supernode has done what there was to do
CALM_TIME = 1.0  # seconds
ENDS_WITHIN = 20.0  # seconds until it is calm
WATCHED_LINES = 10
RULERS_CORE, MEMBERS_CORE = 0, 1  # where there are two
TRIES_PER_SECOND = 20.0  # so fast a supernode finds out who can be reached; before that it does not rest


class Figure(NamedTuple):
    """One line of the table."""

    phase: str
    what: str
    value: str
    aim: str = ""


class Timed(Running):
    """A program whose lines have the times at which they came."""

    def __init__(self, *words: object, core: Optional[int] = None, **more: Any) -> None:
        self.times: List[float] = []
        super().__init__(*words, **more)  # type: ignore[arg-type]
        if core is not None:
            self.move_to(core)

    def move_to(self, core: int) -> None:
        """It runs on this core from now on, where there are two, with all threads that it has."""
        if hasattr(os, "sched_setaffinity") and (os.cpu_count() or 1) > 1:
            for thread in os.listdir(f"/proc/{self.process.pid}/task"):
                with contextlib.suppress(ProcessLookupError):  # it has ended meanwhile
                    os.sched_setaffinity(int(thread), {core})

    def _keep(self, lines: Sequence[str], is_at_end: bool = False) -> None:
        self.times += [time.monotonic()] * len(lines)
        super()._keep(lines, is_at_end)

    def time_of(self, pattern: str, since: int, limit: float = PATIENCE) -> Optional[float]:
        """When the first line from number `since` on came that has it; None: none did in time."""
        find, until, at = re.compile(pattern).search, time.monotonic() + limit, since
        while time.monotonic() < until and self.process.poll() is None:
            while at < len(self.lines):
                if find(self.lines[at]):
                    return self.times[at]
                at += 1
            with self._has_more:
                self._has_more.wait(0.2)
        return None

    def megabytes(self) -> float:
        return float(status_of(self.process.pid, "VmRSS")) / 1024


class Light:
    """The process of the light members, and what it answers."""

    def __init__(self, program: Timed) -> None:
        self._program = program
        program.expect('"kind": "ready"')

    def tell(self, do: str, **values: Any) -> None:
        self._program.type(json.dumps({"do": do, **values}))

    def ask(self, what: str, **values: Any) -> Dict[str, Any]:
        since = len(self._program.lines)
        self.tell(f"tell_{what}", **values)
        found = self._program.expect(f'"kind": "{what}"', since)
        return dict(json.loads(found.string))

    def state(self) -> Dict[str, Any]:
        return self.ask("state")


class Chat:
    """Lines typed at one program, and how long each took until it was on its screen."""

    def __init__(self, bo: Timed) -> None:
        self.seconds: List[float] = []
        self.lost = 0
        self._bo = bo
        self._number = 0

    def say(self) -> None:
        self._number += 1
        text = f"line {id(self)} {self._number}"
        since, began = len(self._bo.lines), time.monotonic()
        self._bo.type(f"T {text}")
        at = self._bo.time_of(f"<bo> {text}$", since)
        if at is None:
            self.lost += 1
        else:
            self.seconds.append(at - began)

    @contextlib.contextmanager
    def beside(self) -> Iterator[Chat]:
        """It goes on while something else does."""
        is_over = threading.Event()

        def talk() -> None:
            while not is_over.wait(CHAT_EVERY):
                self.say()

        thread = threading.Thread(target=talk, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            is_over.set()
            thread.join(PATIENCE)

    def __str__(self) -> str:
        if not self.seconds:
            return f"none of {self.lost} came"
        middle, most = statistics.median(self.seconds), max(self.seconds)
        return f"{middle * 1e3:.0f}, at most {most * 1e3:.0f} ms" + (f", {self.lost} LOST" if self.lost else "")


class Hall:
    """All that run, and the phases."""

    def __init__(self, arguments: argparse.Namespace, ana: Timed, bo: Timed, light: Light) -> None:
        self.members = arguments.members
        self._arguments = arguments
        self._ana, self._bo, self._light = ana, bo, light
        self._figures: List[Figure] = []
        self._phase = ""

    def play(self, phase: str) -> List[Figure]:
        self._phase, self._figures = phase, []
        PHASES[phase](self)
        return self._figures

    def _note(self, what: str, value: str, aim: str = "") -> None:
        self._figures.append(Figure(self._phase, what, value, aim))

    @property
    def _ruler(self) -> Timed:
        return self._ana if self._ana.process.poll() is None else self._bo

    def _calm(self) -> float:
        """Until the supernode does little; when that was."""
        until = time.monotonic() + ENDS_WITHIN
        while time.monotonic() < until:
            began, used = time.monotonic(), cpu_of(self._ruler)
            time.sleep(CALM_TIME)
            if cpu_of(self._ruler) - used < CALM * (time.monotonic() - began):
                return began
        return time.monotonic()

    def _until_whole(self, began: float, limit: float, is_ruler_new: Callable[[Any], bool]) -> Tuple[str, str]:
        """(when all were in, when all had the whole roster), in seconds, or how many are."""
        want, joined = self.members + 2 - (self._ruler is self._bo), ""
        state: Dict[str, Any] = {}
        while time.monotonic() < began + limit:
            time.sleep(LOOK_EVERY)
            state = self._light.state()
            if state["joined"] < self.members or not is_ruler_new(state["ruler"]) or state["rulers"] != 1:
                continue
            joined = joined or f"{state['last_joined_at'] - began:.1f} s"
            if state["lengths"] == [[want, self.members]]:
                return joined, f"{state['at'] - began:.1f} s"
        return joined or f"{state['joined']} after {limit:.0f} s", f"{state['lengths']} after {limit:.0f} s"

    # ---- phases

    def join(self) -> None:
        before, began, used = Counts(self._light), time.monotonic(), cpu_of(self._ana)
        with Chat(self._bo).beside() as chat:
            self._light.tell("join")
            joined, whole = self._until_whole(began, 120.0, lambda ruler: True)
            self._calm()
        self._note(f"{self.members} members joined; rosters whole", f"{joined}; {whole}", "8 s")
        self._note("core-seconds of the supernode, its memory", self._cost(used))
        self._note("chat meanwhile", str(chat))
        before.tell(self._note)

    def idle(self) -> None:
        time.sleep(3.0 + self.members / TRIES_PER_SECOND)
        before, used, began = Counts(self._light), cpu_of(self._ana), time.monotonic()
        time.sleep(self._arguments.seconds)
        took = time.monotonic() - began
        self._note("of a core", f"{(cpu_of(self._ana) - used) / took:.1%}", "under 15 %")
        self._note("datagrams to and from members a second", f"{before.datagrams() / took:.0f}")
        used, chat = cpu_of(self._ana), Chat(self._bo)
        began = time.monotonic()
        for _ in range(WATCHED_LINES):
            chat.say()
            time.sleep(0.3)
        self._note("ten lines of chat", f"{chat}; {cpu_of(self._ana) - used:.2f} core-seconds")

    def churn(self) -> None:
        number = self.members // 2
        for verb in ("leave", "rejoin") * 2:
            before, used = Counts(self._light), cpu_of(self._ana)
            self._light.tell(verb, number=number)
            time.sleep(4.0)
            self._note(f"one does {verb}: core-seconds in 4 s", f"{cpu_of(self._ana) - used:.2f}")
            before.tell(self._note)

    def shares(self) -> None:
        used, began = cpu_of(self._ana), time.monotonic()
        with Chat(self._bo).beside() as chat:
            self._light.tell("share", count=self._arguments.files)
            settled = self._calm() - began
        self._note(f"{self._arguments.files} files each: announced", f"{settled:.1f} s")
        self._note("core-seconds of the supernode, its memory", self._cost(used))
        self._note("chat meanwhile", str(chat))
        used, began = cpu_of(self._ana), time.monotonic()
        self._light.tell("list", number=1, pattern="")
        listed = self._poll(lambda: self._light.ask("list", number=1)["list"], 30.0)
        told = "not in 30 s" if listed is None else f"{listed[0]} rows, {listed[1] - began:.2f} s"
        self._note("a list of all", f"{told}, {cpu_of(self._ana) - used:.2f} core-seconds")
        times = [self._search_time(query) for query in range(5)]
        self._note("five searches, until the offer", ", ".join(times))

    def _search_time(self, query: int) -> str:
        began = time.monotonic()
        self._light.tell("search", number=2, holder=self.members - 1 - query, query=query)
        offers = self._poll(lambda: self._offers(query, 1), 10.0)
        return "none" if offers is None else f"{(offers['last'] - began) * 1e3:.0f} ms"

    def _offers(self, query: int, count: int) -> Optional[Dict[str, Any]]:
        offers = self._light.ask("offers", query=query)
        return offers if offers["got"] >= count else None

    def _poll(self, look: Callable[[], Any], limit: float) -> Any:
        """What it sees at last, or None in time."""
        until, seen = time.monotonic() + limit, None
        while seen is None and time.monotonic() < until:
            time.sleep(0.2)
            seen = look()
        return seen

    def talk(self) -> None:
        chooser = random.Random(5)
        for rate in self._arguments.rates:
            before, used, began, said = Counts(self._light), cpu_of(self._ana), time.monotonic(), 0
            with Chat(self._bo).beside() as chat:
                while time.monotonic() < began + self._arguments.seconds:
                    while said < rate * (time.monotonic() - began):
                        self._light.tell("say", number=chooser.randrange(3, self.members), text=f"{said} {'x' * 40}")
                        said += 1
                    time.sleep(0.01)
                took, used = time.monotonic() - began, cpu_of(self._ana) - used
                datagrams = before.datagrams() / took
                self._calm()
            heard = before.messages().get("Chat", (0, 0))[0] / self.members
            self._note(f"{rate:g} lines a second: of a core", f"{used / took:.0%}", "under 50 %" if rate == 20 else "")
            self._note("datagrams to and from members a second", f"{datagrams:.0f}")
            all_said = said + len(chat.seconds) + chat.lost
            self._note("heard of the lines said; of them typed", f"{heard:.1f} of {all_said}; {chat}")

    def rush(self) -> None:
        self._light.tell("share", count=10)
        time.sleep(3.0)
        self._calm()
        for query, count in ((100, self.members // 10), (101, self.members - 1)):
            before, used, began = Counts(self._light), cpu_of(self._ana), time.monotonic()
            with Chat(self._bo).beside() as chat:
                self._light.tell("rush", query=query, count=count)
                offers = self._poll(lambda q=query, c=count: self._offers(q, c), 40.0)  # type: ignore[misc]
                self._calm()
            last = self._light.ask("offers", query=query)
            told = f"{last['last'] - began:.1f} s" if offers else f"{last['got']} only, in 40 s"
            self._note(f"{count} ask: all have an offer", told, "5 s")
            self._note("chat meanwhile", str(chat), "under 1 s")
            lost = "nobody" if last["joined"] == self.members else f"{self.members - last['joined']} members"
            self._note("core-seconds, memory; lost", f"{self._cost(used)}; {lost}", "under 250 MB; nobody")
            before.tell(self._note)

    def kill(self) -> None:
        old, before, used = self._light.state()["ruler"], Counts(self._light), cpu_of(self._bo)
        since, began = len(self._bo.lines), time.monotonic()
        self._ana.kill()
        self._bo.move_to(RULERS_CORE)  # it shared the other one with the members: else they measure themselves
        took_over = self._bo.time_of("you are now the supernode", since)
        with Chat(self._bo).beside() as chat:
            joined, whole = self._until_whole(began, 90.0, lambda ruler: bool(ruler) and ruler[0][0] != old[0][0])
            self._calm()
        self._note("the next one rules", "not in time" if took_over is None else f"{took_over - began:.1f} s")
        self._note("all are with it again; rosters whole", f"{joined}; {whole}", "15 s")
        self._note("core-seconds of the successor, its memory", self._cost(used))
        self._note("chat, as soon as it rules", str(chat))
        before.tell(self._note)

    def _cost(self, used: float) -> str:
        return f"{cpu_of(self._ruler) - used:.1f}, {self._ruler.megabytes():.0f} MB"


class Counts:
    """What the members have been told since this was made."""

    def __init__(self, light: Light) -> None:
        self._light, self._before = light, light.state()

    def datagrams(self) -> int:
        return int(self._light.state()["datagrams"] - self._before["datagrams"])

    def messages(self) -> Dict[str, Tuple[int, int]]:
        """By name: how many, how many bytes."""
        now, before = self._light.state(), self._before
        counted: Counter[str] = collections.Counter(now["messages"])
        counted.subtract(before["messages"])
        return {
            name: (count, now["bytes"][name] - before["bytes"].get(name, 0))
            for name, count in counted.most_common()
            if count
        }

    def tell(self, note: Callable[[str, str], None]) -> None:
        state = self._light.state()
        told = [f"{name} {count} ({size / 1e6:.1f} MB)" for name, (count, size) in self.messages().items()]
        note("told", "; ".join(told[:5]))
        events: Counter[str] = collections.Counter(state["events"])
        events.subtract(self._before["events"])
        happened = [f"{name}: {count}" for name, count in events.most_common(6) if count]
        note("events; alarms late by", f"{'; '.join(happened) or 'none'}; {state['late']:.2f} s")


PHASES: Dict[str, Callable[[Hall], None]] = {
    "join": Hall.join, "idle": Hall.idle, "churn": Hall.churn, "shares": Hall.shares, "talk": Hall.talk,
    "rush": Hall.rush, "kill": Hall.kill,
}  # fmt: skip


# ---- the program --------------------------------------------------------------------------------------------------


def parse(words: Optional[Sequence[str]] = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--members", type=int, default=300, help="light ones, 10 to 1000 (default 300)")
    parser.add_argument("--phases", default=",".join(PHASES), help="divided by commas (default all; join is the first)")
    parser.add_argument("--files", type=int, default=100, help="of each member, in the phase shares (default 100)")
    parser.add_argument("--rates", default="2,10,20", help="lines a second, in the phase talk (default 2,10,20)")
    parser.add_argument("--seconds", type=float, default=8.0, help="that idle and each rate of talk take (default 8)")
    parser.add_argument("--repo", default=None, help="another tree whose program is measured, by these members")
    parser.add_argument("--markdown", action="store_true")
    arguments = parser.parse_args(words)
    arguments.phases = list(dict.fromkeys(["join", *arguments.phases.split(",")]))
    unknown = [phase for phase in arguments.phases if phase not in PHASES]
    if unknown:
        parser.error(f"no such phase: {', '.join(unknown)}")
    if not 10 <= arguments.members <= 1000:
        parser.error("--members takes 10 to 1000")
    if arguments.files < 8 or arguments.seconds <= 0:
        parser.error("--files takes 8 or more, --seconds more than 0")
    try:
        arguments.rates = [float(rate) for rate in arguments.rates.split(",")]
    except ValueError:
        parser.error("--rates takes numbers divided by commas")
    return arguments


def show(figures: Sequence[Figure], is_markdown: bool) -> None:
    for figure in figures:
        print(("| %s | %s | %s | %s |" if is_markdown else "%-7s %-45s %-52s %s") % figure, flush=True)


@contextlib.contextmanager
def hall_of(arguments: argparse.Namespace, home: Path) -> Iterator[Hall]:
    """Two programs in folders of their own, and the light members; all end with it, by their own process ids."""
    root = Path(arguments.repo or Path(__file__).resolve().parents[2])
    port = free_port()
    with contextlib.ExitStack() as stack:
        programs = []
        for name, core in (("ana", RULERS_CORE), ("bo", MEMBERS_CORE)):
            (home / name / "shared").mkdir(parents=True)
            flags = ["--ip", "127.0.0.1", "--port", port, "--name", name, "--folder", home / name / "shared"]
            program = stack.enter_context(Timed(str(root / "node_client.py"), *flags, cwd=home / name, core=core))
            program.expect(r"^\* (joined|supernode at)")
            programs.append(program)
        flags = ["--members", arguments.members, "--port", port]
        light = stack.enter_context(Timed("node_tests/bench/light_members.py", *flags, core=MEMBERS_CORE))
        yield Hall(arguments, programs[0], programs[1], Light(light))


def main() -> None:
    arguments = parse()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that what was started ends, too
    print("Python %s, %s, %d cores, load %.1f at the start, %s, %d members\n" % (
        platform.python_version(), platform.system(), os.cpu_count() or 0, os.getloadavg()[0],
        time.strftime("%Y-%m-%d"), arguments.members), flush=True)  # fmt: skip
    if arguments.markdown:
        print("| phase | what | measured | aim |\n| --- | --- | ---: | --- |")
    with tempfile.TemporaryDirectory() as home, hall_of(arguments, Path(home)) as hall:
        for phase in arguments.phases:
            show(hall.play(phase), arguments.markdown)


if __name__ == "__main__":
    main()
