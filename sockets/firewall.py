"""Does a firewall of this machine let others in at a port? As far as it is seen from inside, by any user.

`read` gives the text of a file, `run` what a program prints, both None when that cannot be had (the doors are handed
in, and `run` is bounded in time). Rules are mostly root's to read: then a firewall is known to be on, and no more.
What a rule that is not understood does is not known either, so nothing is said to be shut that might be open, but for
what no rule mentions. Another member's try (dial back) knows better.
"""

from __future__ import annotations

import re
import sys
from typing import Callable, Iterator, List, Optional, Sequence

from protocol.facts import MAC_FIREWALL, Firewall, FirewallState, remedy_of

Read = Callable[[str], Optional[str]]
Run = Callable[[Sequence[str]], Optional[str]]

ANY = r"(0\.0\.0\.0/0|::/0|any)"  # who may come, in rules that let all in
# Rules of nftables that mean no datagram from another machine.
NFT_BESIDE = re.compile(r'(iifname|iif) "?lo"? |(tcp|icmp|icmpv6|ip protocol icmp|meta l4proto (tcp|icmp|ipv6-icmp)) ')
NONE, OFF, UNKNOWN = FirewallState.NONE, FirewallState.OFF, FirewallState.UNKNOWN
OPEN, SHUT = FirewallState.OPEN, FirewallState.SHUT


def found(read: Read, run: Run, port: int, platform: str = sys.platform) -> Firewall:
    """The firewall that has to do with this port: the first that is on, else what was found of one that is off."""
    if platform == "win32":
        looks = [_windows(run, port)]
    elif platform == "darwin":
        looks = [_mac(run, port)]
    else:
        looks = [_ufw(read, port), _firewalld(run, port), _iptables(run, port), _nftables(run, port)]
    known = [each for each in looks if each.state is not NONE]
    on = [each for each in known if each.state is not OFF]
    shut = [each for each in on if each.state is SHUT]
    return next(iter([*shut, *on, *known]), Firewall())._replace(port=port)


# ---- Linux


def _ufw(read: Read, port: int) -> Firewall:
    """Whether it is on any user may read; its rules (`### tuple ### allow udp 6020 0.0.0.0/0 any ...`) are root's."""
    setting = re.search(r"^\s*ENABLED\s*=\s*[\"']?(\w+)", read("/etc/ufw/ufw.conf") or "", re.M)
    if not setting:
        return Firewall()
    remedy = remedy_of("ufw", port)
    if setting.group(1).lower() != "yes":
        return Firewall("ufw", OFF, remedy)
    rules = read("/etc/ufw/user.rules")
    if rules is None:
        return Firewall("ufw", UNKNOWN, remedy)
    lets_in = re.search(r"^\s*DEFAULT_INPUT_POLICY\s*=\s*[\"']?ACCEPT", read("/etc/default/ufw") or "", re.M)
    return Firewall("ufw", _ufw_state(rules, port, bool(lets_in)), remedy)


def _ufw_state(rules: str, port: int, lets_in: bool) -> FirewallState:
    for action, protocol, ports, whom in re.findall(
        r"^### tuple ### (\w+) (\w+) (\S+) \S+ \S+ (\S+) in", rules, re.M
    ):
        if protocol in ("udp", "any") and _has_port(ports, port):
            if not re.fullmatch(ANY, whom):
                return UNKNOWN  # some may come
            return OPEN if action in ("allow", "limit") else SHUT
    return OPEN if lets_in else SHUT


def _has_port(ports: str, port: int) -> bool:
    """`6020`, `6000:6100`, `6000-6100`, several with commas between, or `any`."""
    for part in ports.split(","):
        first, _, last = part.strip().replace("-", ":").partition(":")
        if part == "any" or (first.isdigit() and int(first) <= port <= int(last if last.isdigit() else first)):
            return True
    return False


def _firewalld(run: Run, port: int) -> Firewall:
    """It tells any user whether it runs, and most whether a port is open."""
    if (run(["firewall-cmd", "--state"]) or "").strip() != "running":
        return Firewall()
    remedy = remedy_of("firewalld", port)
    told = (run(["firewall-cmd", f"--query-port={port}/udp"]) or "").strip()
    # A source, a service or the zone's target may let in what no port does.
    return Firewall("firewalld", OPEN if told == "yes" else UNKNOWN, remedy)


def _iptables(run: Run, port: int) -> Firewall:
    """The chain INPUT as `iptables -S` has it, read from the top; root only."""
    told = run(["iptables", "-S", "INPUT"])
    if told is None or "-P INPUT" not in told:
        return Firewall()
    remedy = remedy_of("iptables", port)
    rules = re.findall(r"^-A INPUT(.*)$", told, re.M)
    is_accepting = "-P INPUT ACCEPT" in told
    if not rules and is_accepting:
        return Firewall("iptables", OFF, remedy)
    return Firewall("iptables", _iptables_state(rules, port, is_accepting), remedy)


def _iptables_state(rules: Sequence[str], port: int, is_accepting: bool) -> FirewallState:
    for rule in rules:
        target = re.search(r" -j (\S+)", rule)
        if target is None or not _may_mean(rule, port):
            continue
        if target.group(1) not in ("ACCEPT", "DROP", "REJECT"):
            return UNKNOWN  # a chain of its own
        if not _means_all(rule):
            return UNKNOWN  # from some, or so many a second
        return OPEN if target.group(1) == "ACCEPT" else SHUT
    return OPEN if is_accepting else SHUT


def _may_mean(rule: str, port: int) -> bool:
    """Could this rule be about a first datagram of a stranger to that UDP port?"""
    if re.search(r" -i lo\b| -j (LOG|NFLOG|TRACE|MARK)\b", rule) or _is_about_answers(rule):
        return False
    protocol = re.search(r" -p (\S+)", rule)
    if protocol and protocol.group(1) not in ("udp", "17", "all"):
        return False
    ports = re.search(r" --dports? (\S+)", rule)
    return not ports or _has_port(ports.group(1), port)


def _is_about_answers(rule: str) -> bool:
    states = re.search(r"--(?:ct)?state (\S+)", rule)
    return states is not None and "NEW" not in states.group(1).split(",")


def _means_all(rule: str) -> bool:
    """Does it hold whoever sends, and however much?"""
    rest = re.sub(r" -j \S+.*$| -p \S+| -m (udp|multiport|comment|conntrack|state)\b| --dports? \S+"
                  r"| --(ct)?state \S+| --comment (\"[^\"]*\"|\S+)", "", rule)
    return not rest.strip()


def _nftables(run: Run, port: int) -> Firewall:
    """The chains that see what comes in, read from the top; root only. What is not understood is not judged."""
    told = run(["nft", "list", "ruleset"])
    states = []
    for table, chain, policy, rules in _input_chains(told or ""):
        remedy = f"sudo nft insert rule {table} {chain} udp dport {port} accept"
        states.append(Firewall("nftables", _nft_state(rules, port, policy), remedy))
    # Each chain may throw away what another one lets in.
    worst = [each for state in (SHUT, UNKNOWN, OPEN) for each in states if each.state is state]
    return worst[0] if worst else Firewall()


def _input_chains(told: str) -> Iterator[tuple[str, str, str, List[str]]]:
    table = ""
    for line in re.finditer(r"^table (\w+ \S+) \{|^\tchain (\S+) \{\n((?:\t\t.*\n)*)", told, re.M):
        if line.group(1):
            table = line.group(1)
            continue
        first, *rules = [rule.strip() for rule in line.group(3).splitlines()] or [""]
        policy = re.search(r"hook input .*policy (\w+)", first)
        if policy and (rules or policy.group(1) != "accept"):
            yield table, line.group(2), policy.group(1), rules


def _nft_state(rules: Sequence[str], port: int, policy: str) -> FirewallState:
    """What a chain of nftables does with such a datagram: its first rule that fits, else its policy; or UNKNOWN."""
    for rule in rules:
        rule = re.sub(r"\bcounter packets \d+ bytes \d+ ?", "", rule).strip()
        if NFT_BESIDE.match(rule) or (rule.startswith("ct state ") and not re.search(r"\b(new|untracked)\b", rule)):
            continue
        ports = re.fullmatch(r"udp dport (?:\{ )?([\d, -]+?)(?: \})? (accept|drop|reject.*)", rule)
        if ports and not _has_port(ports.group(1).replace(" ", ""), port):
            continue
        verdict = ports.group(2) if ports else rule
        if re.fullmatch(r"accept|drop|reject.*", verdict):
            return OPEN if verdict == "accept" else SHUT
        return UNKNOWN
    return OPEN if policy == "accept" else SHUT


# ---- elsewhere


def _windows(run: Run, port: int) -> Firewall:
    """On or off is a word of the user's language; what it does with what comes in is not."""
    told = run(["netsh", "advfirewall", "show", "currentprofile"]) or ""
    policy = re.search(r"\b(Block|Allow)Inbound(Always)?,", told)
    if not policy:
        return Firewall()
    remedy = remedy_of("windows", port)
    is_off = re.search(r"^State\s+OFF\s*$", told, re.M) or policy.group(1) == "Allow"
    state = OFF if is_off else SHUT if policy.group(2) else UNKNOWN
    return Firewall("Windows Defender", state, remedy)


def _mac(run: Run, port: int) -> Firewall:
    """It knows programs, not ports."""
    told = run([MAC_FIREWALL, "--getglobalstate"]) or ""
    state = re.search(r"State = (\d)", told)
    if not state:
        return Firewall()
    remedy = remedy_of("macos", port)
    on = SHUT if state.group(1) == "2" else UNKNOWN  # 2: all that comes in is blocked
    return Firewall("the macOS firewall", OFF if state.group(1) == "0" else on, remedy)
