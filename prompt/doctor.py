"""What is the matter, and what to do about it: facts in; rows for a person, objects for a script, a verdict out.

Each check is a function from the facts to a `Finding`, in the order of the screen; a trouble always has a next step.
Pure. Whatever came from another node is made harmless here (THREATS: C01, A03).
"""

from __future__ import annotations

import sys
import time
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence

from prompt.lines import count_of, format_size, format_time
from prompt.table import WRAPPED_UP_TO, wrapped
from protocol.addresses import is_loopback, shown
from protocol.facts import Facts, FirewallState, Machine, OwnAddress, Reached
from protocol.looks import safe_label, safe_text
from protocol.results import MemberRow, NatKind

ADDRESSES_SHOWN = 3
LITTLE_ROOM = 500_000_000  # bytes: a lecture's files are larger
LOSS_MUCH, LOSS_SENT_LEAST = 0.05, 40  # of packets; of fewer a loss says little
ROUND_TRIP_LONG = 1.0  # seconds; what is farther away than any machine on earth waits in a queue
DATAGRAM_SIZE_BASE = 1200  # bytes, which every path takes
YEARS = range(2025, 2101)  # one of which this clock may show
SHIFT_MUCH = 60.0  # seconds
UNKNOWN, NO_NAT = NatKind.UNKNOWN.value, ("", NatKind.UNKNOWN.value, NatKind.NONE.value)
CLOCK_STEPS = {"win32": "w32tm /resync (as administrator)", "darwin": "sudo sntp -sS time.apple.com"}
CLOCK_STEP = "sudo timedatectl set-ntp true"
TITLE = 10  # columns


class Finding(NamedTuple):
    """What one check found."""

    check: str
    told: str
    is_trouble: bool = False
    step: str = ""  # what to do next
    more: Dict[str, Any] = {}  # for a script


def find(facts: Facts) -> List[Finding]:
    """All checks, in the order of the screen."""
    return [check(facts) for check in CHECKS]


def has_trouble(findings: Sequence[Finding]) -> bool:
    """Is anything of it a trouble?"""
    return any(finding.is_trouble for finding in findings)


def lines_of(findings: Sequence[Finding], columns: Optional[int] = None) -> List[str]:
    """The screen: a row for each check, its next step below, and the verdict."""
    told: List[str] = []
    is_narrow = columns is not None and columns <= WRAPPED_UP_TO
    indent = " " * (5 if is_narrow else TITLE + 3)
    for finding in findings:
        row = f"{'!!' if finding.is_trouble else '  '} {finding.check.ljust(TITLE)}{finding.told}"
        told += wrapped(row, columns, indent) if columns else [row]
        if finding.step:
            step = f"   -> {finding.step}"
            # Where the terminal breaks a command by itself it is left whole, and can be copied from there.
            told += wrapped(step, columns, indent) if columns and is_narrow else [step]
    verdict = _verdict([finding.check for finding in findings if finding.is_trouble])
    return [*told, *(wrapped(verdict, columns) if columns else [verdict])]


def _verdict(troubles: Sequence[str]) -> str:
    return f"* {count_of(len(troubles), 'trouble')}: {', '.join(troubles)}" if troubles else "* no trouble found"


def objects_of(findings: Sequence[Finding]) -> List[Dict[str, Any]]:
    """The same for a script: one object for each check."""
    return [{"check": finding.check, "ok": not finding.is_trouble, "text": finding.told, "next": finding.step,
             **finding.more} for finding in findings]


# ---- the network


def _network(facts: Facts) -> Finding:
    """Which network this node is in, who rules it, and whether it is private."""
    ruler, me = _ruler(facts), next((row for row in facts.health.members if row.is_me), None)
    more = {"joined": facts.health.is_joined, "nodes": len(facts.health.members) if facts.health.is_joined else 0,
            "private": bool(facts.check_code), "code": facts.check_code}
    if facts.health.is_joined and ruler is not None:
        count = f"{count_of(len(facts.health.members), 'node')}, {_privacy(facts)}"
        if ruler is me:
            return Finding("network", f"this node is the supernode: {count}", more=more)
        whose = f"{safe_label(ruler.label)}'s, at {shown(ruler.address)}: {count}"
        return Finding("network", whose, more={**more, "supernode": ruler.label})
    if facts.health.members:
        step = "wait: another node takes over within 15 s; else C and an address"
        return Finding("network", "its supernode is silent", True, step, more)
    return _outside(facts)._replace(more=more)


def _privacy(facts: Facts) -> str:
    """That a network is open is no trouble: each start says so."""
    return f"private (check {facts.check_code})" if facts.check_code else "open (no key)"


def _outside(facts: Facts) -> Finding:
    """This node is in no network."""
    if not facts.target:
        if not facts.machine.addresses:
            return Finding("network", "none found on this machine")
        step = "to one beyond this LAN: the address of a machine there, behind --ip or C"
        return Finding("network", "none found on this machine or the LAN", step=step)
    step = "see that the program runs there, and ask for its doctor on that machine, too"
    if is_loopback(facts.target):
        step = "start the program without a word: it opens one"
    return Finding("network", safe_text(facts.outside).rstrip(".") or "none", not is_loopback(facts.target), step)


def _ruler(facts: Facts) -> Optional[MemberRow]:
    return next((row for row in facts.health.members if row.role == "supernode"), None)


# ---- addresses and the port


def _addresses(facts: Facts) -> Finding:
    """The addresses of this machine, and where each leads; trouble where none is of use."""
    own = facts.machine.addresses
    more = {"addresses": [{"ip": each.ip, "name": each.name, "up": each.is_up, "out": each.leads_out,
                           "network": each.leads_to_network} for each in own]}
    told = "; ".join(map(_address, own[:ADDRESSES_SHOWN])) or "127.0.0.1 alone"
    if len(own) > ADDRESSES_SHOWN:
        told += f"; {len(own) - ADDRESSES_SHOWN} more"
    step = ""
    if not own:
        step = "plug in a cable or join a wifi; until then only programs on it can join"
    elif not any(each.is_up for each in own):
        step = "plug its cable in, or switch it on"
    elif _is_without_lease([each.ip for each in own if not each.is_detour]):
        step = "nobody gave it an address: ask the network for one again, or look at the router"
    return Finding("addresses", told, bool(step) and not _is_local(facts), step, more)


def _is_without_lease(ips: Sequence[str]) -> bool:
    """Has it but what machines give themselves where they asked for an address of IPv4 in vain (RFC 3927)?"""
    return any(ip.startswith("169.254.") for ip in ips) and all(ip.startswith(("169.254.", "fe80:")) for ip in ips)


def _address(own: OwnAddress) -> str:
    leads = ["to the supernode"] * own.leads_to_network + ["out"] * own.leads_out
    where = " and ".join(leads) or ("a tunnel or container" if own.is_detour else "this LAN")
    name = f"{safe_text(own.name, 16)} " if own.name else ""
    return f"{name}{own.ip} ({where if own.is_up else 'no cable'})"


def _is_local(facts: Facts) -> bool:
    """Is all of it meant for programs on this machine?"""
    return is_loopback(facts.target)


def _port(facts: Facts) -> Finding:
    """Who has the port at which people look for the network: this node, a neighbour, or another program."""
    machine = facts.machine
    more = {"port": machine.port, "own": machine.own_port, "holder": "", "pid": None}
    has_other = f"; this node has {machine.own_port}" if machine.own_port not in (0, machine.port) else ""
    if machine.has_port and facts.is_visit:
        return Finding("port", f"{machine.port} is nobody's: a node could have it", more=more)
    if machine.has_port:
        return Finding("port", f"{machine.port} leads to this node{has_other}", more={**more, "holder": "this node"})
    neighbour = _neighbour(facts)
    if neighbour:
        told = f"{machine.port} is {safe_label(neighbour)}'s, a node on this machine{has_other}"
        return Finding("port", told, more={**more, "holder": neighbour})
    if machine.holder is None:
        return Finding("port", f"{machine.port} is nobody's{has_other}", more=more)
    return _held(machine)._replace(more={**more, "holder": machine.holder.name, "pid": machine.holder.pid})


def _neighbour(facts: Facts) -> str:
    """The member on this machine that has the port; empty when none has."""
    own = {each.ip for each in facts.machine.addresses}
    for row in facts.health.members:
        is_here = row.address[0] in own or is_loopback(row.address[0])
        has_door = facts.machine.is_rulers and row.role == "supernode"
        if is_here and not row.is_me and (has_door or row.address[1] == facts.machine.port):
            return row.label
    return ""


def _held(machine: Machine) -> Finding:
    holder, other = machine.holder, machine.port + 1 if machine.port < 65535 else machine.port - 1
    if holder is None or holder.pid is None:
        step = f"who: sudo ss -ulpn sport = :{machine.port}; else start all nodes with --port {other}"
        return Finding("port", f"{machine.port} is held by a program of another user", True, step)
    named = safe_text(holder.name, 40) or "a program"
    step = f"end that program, or start all nodes with --port {other}"
    return Finding("port", f"{machine.port} is held by {named} (process {holder.pid})", True, step)


# ---- can others get in?


def _firewall(facts: Facts) -> Finding:
    """What a firewall of this machine does to that port; no trouble where others got in all the same."""
    wall, state = facts.machine.firewall, facts.machine.firewall.state
    more = {"program": wall.program, "state": state.value}
    lets_in = _is_open(facts.health.reached)
    if state is FirewallState.SHUT:
        is_trouble = not (lets_in or _is_local(facts))
        told = f"{wall.program} keeps out what comes to UDP port {wall.port}"
        return Finding("firewall", told, is_trouble, wall.remedy * is_trouble, more)
    if state is FirewallState.UNKNOWN:
        told = f"{wall.program} is on; its rules cannot be read here"
        step = f"if others cannot reach this node: {wall.remedy}" * (lets_in is None and not _is_local(facts))
        return Finding("firewall", told, step=step, more=more)
    sees = {
        FirewallState.OPEN: f"{wall.program} lets UDP port {wall.port} in",
        FirewallState.OFF: f"{wall.program} is off, or keeps nothing out",
    }
    return Finding("firewall", sees.get(state, "none found, as far as this user may look"), more=more)


def _is_open(reached: Optional[Reached]) -> Optional[bool]:
    return reached.is_open if reached is not None else None


def _reached(facts: Facts) -> Finding:
    """Whether another node got in here where this one had not spoken first."""
    reached = facts.health.reached
    more = {"open": _is_open(reached), "by": reached.by if reached else ""}
    if reached is None or reached.is_open is None:
        has_others = facts.health.is_joined and len(facts.health.members) > 1
        told = "not known: nobody has tried yet" if has_others else "not known: nobody else is there who could try"
        return Finding("reached", told, more=more)
    who, ago = safe_label(reached.by) or "another node", format_time(reached.ago)
    if reached.is_open:
        return Finding("reached", f"yes: {who} got through, {ago} ago", more=more)
    told = f"no: {who} did not get through, {ago} ago"
    if facts.is_visit and not facts.machine.has_port:
        step = f"that is about port {facts.machine.own_port} alone; ask D of the node that has {facts.machine.port}"
        return Finding("reached", told, step=step, more=more)
    return Finding("reached", told, True, _way_in(facts, reached), more)


def _way_in(facts: Facts, reached: Reached) -> str:
    """How others would: by the firewall, by the router, or as far as can be said."""
    wall, port = facts.machine.firewall, facts.machine.own_port or facts.machine.port
    if wall.state is FirewallState.SHUT:
        return "open the firewall as said above"
    if wall.state is FirewallState.UNKNOWN:
        return wall.remedy
    if reached.nat not in NO_NAT:
        ruler = _ruler(facts)
        others = "nobody can join by it"
        if ruler is not None and not ruler.is_me:
            others = f"files go by way of {safe_label(ruler.label)}"
        return f"have the router pass UDP port {port} on to here; till then {others}"
    return f"open UDP port {port} in this machine's firewall, or in one between (root sees more)"


def _nat(facts: Facts) -> Finding:
    kind = facts.health.reached.nat if facts.health.reached else ""
    is_known = kind not in ("", UNKNOWN)
    told = safe_text(kind) if is_known else "not known: nobody has told how this node is seen"
    return Finding("NAT", told, more={"kind": kind if is_known else ""})


# ---- the path


def _path(facts: Facts) -> Finding:
    """Round trip and loss to the supernode, or to the farthest of its members; trouble where much is lost or late."""
    ruler, figures = _ruler(facts), facts.health.path
    if figures is None or ruler is None:
        return Finding("path", _farthest(facts), more={"round_trip": None})
    trip = ruler.round_trip if figures.round_trip is None else figures.round_trip
    size = figures.datagram_size
    more = {"round_trip": trip, "sent": figures.sent, "lost": figures.lost, "datagram_size": size or None}
    told = [f"{_milliseconds(trip)} to {safe_label(ruler.label)}", f"{figures.lost} of {figures.sent} packets lost"]
    if size:
        told.append(f"{size} bytes a datagram" + " (the least)" * (size <= DATAGRAM_SIZE_BASE))
    step = ""
    if figures.lost_part > LOSS_MUCH and figures.sent >= LOSS_SENT_LEAST:
        step = "many are lost: go nearer to the access point, or take a cable"
    elif trip is not None and trip > ROUND_TRIP_LONG:
        step = "something fills the line: V shows what this node sends, L slows it"
    return Finding("path", ", ".join(told), bool(step), step, more)


def _farthest(facts: Facts) -> str:
    trips = [(row.round_trip, row.label) for row in facts.health.members if row.round_trip is not None]
    if not trips:
        return "not measured yet" if len(facts.health.members) > 1 else "there is no other node"
    trip, label = max(trips)
    return f"at most {_milliseconds(trip)}, to {safe_label(label)}"


def _milliseconds(trip: Optional[float]) -> str:
    return "round trip unknown" if trip is None else f"{trip * 1e3:.1f} ms"


# ---- this machine


def _disk(facts: Facts) -> Finding:
    """Whether what is fetched has room and may be written there."""
    disk = facts.machine.disk
    more = {"folder": disk.folder, "free": disk.free, "total": disk.total, "takes_files": disk.takes_files}
    told = f"{format_size(disk.free)} of {format_size(disk.total)} free for {safe_text(disk.folder, 1000)}"
    step = ""
    if disk.trouble:
        told, step = safe_text(disk.trouble, 1000), "use a folder that you may write to: --folder, or get --to"
        told = told if disk.folder in told else f"{safe_text(disk.folder, 1000)}: {told}"
    elif not disk.takes_files:
        told, step = f"{told}, but no inodes", "remove some files there, however small"
    elif disk.free < LITTLE_ROOM:
        step = "make room there, or use a folder on another disk: --folder, or get --to"
    return Finding("disk", told, bool(step), step, more)


def _clock(facts: Facts, platform: str = sys.platform) -> Finding:
    """What time it is here, and whether that was set meanwhile; trouble only in a year that cannot be."""
    clock = facts.machine.clock
    try:
        at = time.gmtime(clock.at)
    except (OSError, OverflowError, ValueError):
        at = time.gmtime(0)
    told = time.strftime("%Y-%m-%d %H:%M UTC", at)
    more = {"time": round(clock.at, 3), "shift": round(clock.shifted_by, 3)}
    if at.tm_year not in YEARS:
        step = f"set it: {CLOCK_STEPS.get(platform, CLOCK_STEP)}"
        return Finding("clock", f"{told}, which cannot be", True, step, more)
    if abs(clock.shifted_by) > SHIFT_MUCH:
        told += f", set by {format_time(abs(clock.shifted_by))} since the start, unless this machine slept"
    return Finding("clock", told, more=more)


CHECKS: Sequence[Callable[[Facts], Finding]] = (
    _network, _addresses, _port, _firewall, _reached, _nat, _path, _disk, _clock,
)  # fmt: skip
