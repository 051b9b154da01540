"""What a person reads whose node others cannot reach, with how to open the port in the firewall of this system."""

from __future__ import annotations

import os
import sys
from typing import Callable, Dict

from protocol.facts import remedy_of
from protocol.looks import safe_label
from protocol.results import NatKind, Unreachable

TOOLS: Dict[str, str] = {"ufw": "/usr/sbin/ufw", "firewalld": "/usr/bin/firewall-cmd"}


def system_of(platform: str, has: Callable[[str], bool]) -> str:
    """The row of REMEDIES for this platform (as `sys.platform`), or ""; `has`: is there a program of that path?"""
    if platform.startswith("linux"):
        return next((name for name, path in TOOLS.items() if has(path)), "iptables")
    return {"win32": "windows", "cygwin": "windows", "darwin": "macos"}.get(platform, "")


def how_to_open(port: int, system: str, program: str = sys.executable) -> str:
    """What a person types so that others get in at that UDP port."""
    if not system:
        return f"let UDP port {port} in, in the settings of its firewall"
    return "as administrator, " * (system == "windows") + remedy_of(system, port, program)


def how_to_open_here(port: int) -> str:
    """The same, on this machine."""
    return how_to_open(port, system_of(sys.platform, os.path.exists))


def unreachable_text(event: Unreachable) -> str:
    """Why others do not get through to this machine, and what to do."""
    ruler = safe_label(event.supernode_label)
    if event.nat is NatKind.SYMMETRIC:
        return f"the router here shows another port to each, so what cannot come directly goes by way of {ruler}"
    why = f"a firewall lets in answers only (tried by {safe_label(event.by)})"
    effect = "nobody more can join here" if event.is_ruler else f"what you share goes by way of {ruler}"
    return f"others cannot reach this machine: {why}; {effect}. To open it: {how_to_open_here(event.port)}"
