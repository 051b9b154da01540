"""What a node finds out when its person asks what is the matter (`D`, `doctor`): values only.

`sockets/` and `disk/` say what they see of this machine, the peer what it knows of its network; which of it is a
trouble, and what to do about it, says `prompt/doctor.py`. Sizes are bytes, times seconds.
"""

from __future__ import annotations

import enum
import sys
from typing import Dict, NamedTuple, Optional, Tuple

from protocol.figures import PathFigures
from protocol.results import MemberRow


class OwnAddress(NamedTuple):
    """One address of this machine, and where it leads."""

    ip: str
    name: str = ""  # of the interface; "" where the system does not tell
    is_up: bool = True  # False: switched off, or its cable is out
    is_detour: bool = False  # a tunnel's, a virtual machine's, a container's
    leads_out: bool = False  # the default route begins here
    leads_to_network: bool = False  # so does the way to the supernode


class Holder(NamedTuple):
    """The program that has a port."""

    name: str = ""  # "" and no pid: another user's, of which the system tells no more
    pid: Optional[int] = None


class FirewallState(enum.Enum):
    """What is seen of a firewall from inside; the values are those of `--json`."""

    NONE = "none"  # no program of one was found
    OFF = "off"
    OPEN = "open"  # it lets the port in
    SHUT = "shut"  # it keeps the port out
    UNKNOWN = "unknown"  # it is on, and its rules cannot be read here


MAC_FIREWALL = "/usr/libexec/ApplicationFirewall/socketfilterfw"
# What is typed to let others in; {port} is the UDP port, {program} the Python that runs this.
REMEDIES: Dict[str, str] = {
    "ufw": "sudo ufw allow {port}/udp",
    "firewalld": "sudo firewall-cmd --permanent --add-port={port}/udp && sudo firewall-cmd --reload",
    "iptables": "sudo iptables -I INPUT -p udp --dport {port} -j ACCEPT",
    "windows": 'netsh advfirewall firewall add rule name="lab share" dir=in action=allow protocol=UDP localport={port}',
    "macos": f"sudo {MAC_FIREWALL} --add {{program}} --unblockapp {{program}}",
}


def remedy_of(system: str, port: int, program: str = sys.executable) -> str:
    """The command of a row of REMEDIES."""
    return REMEDIES[system].format(port=port, program=program or "python3")


class Firewall(NamedTuple):
    """A firewall of this machine, as this user sees it."""

    program: str = ""  # ufw, firewalld, iptables, nftables, Windows Defender, the macOS firewall
    state: FirewallState = FirewallState.NONE
    remedy: str = ""  # the command that opens the port
    port: int = 0  # that was asked about


class Disk(NamedTuple):
    """The folder that fetched files go to, and the disk it is on."""

    folder: str
    free: int = 0
    total: int = 0
    takes_files: bool = True  # False: it has no inodes left, whatever is free
    trouble: str = ""  # why it cannot be written to, or not even looked at


class Clock(NamedTuple):
    """This machine's time of day."""

    at: float  # since 1970
    shifted_by: float = 0.0  # how far it was set, or went astray, since this program began


class Machine(NamedTuple):
    """What this machine has to do with it."""

    addresses: Tuple[OwnAddress, ...]
    port: int  # that was asked for
    own_port: int  # that this node has; 0: none
    has_port: bool  # does the port that was asked for lead to this node?
    holder: Optional[Holder]  # of the port that was asked for, if it is not this node; None: nobody, or unknown
    firewall: Firewall
    disk: Disk
    clock: Clock
    is_rulers: bool = False  # the holder is the supernode, on this machine, which has the known port as its door


class Reached(NamedTuple):
    """What came of another member's try to reach this node where it did not speak first."""

    is_open: Optional[bool] = None  # None: nothing is known of it yet
    by: str = ""  # label of who tried
    ago: float = 0.0
    nat: str = ""  # what is between, in words; "": not known


class Health(NamedTuple):
    """What the node knows of its network."""

    is_joined: bool = False
    members: Tuple[MemberRow, ...] = ()
    path: Optional[PathFigures] = None  # to the supernode; None: no link with another machine's
    reached: Optional[Reached] = None  # None: nobody has tried


class Facts(NamedTuple):
    """All of it, at one moment."""

    machine: Machine
    health: Health = Health()
    target: str = ""  # the address that was asked for; "": the network was searched
    outside: str = ""  # why this node is in no network, as a sentence
    is_visit: bool = False  # this node is there for the answer only
    check_code: str = ""  # of the network's key; "": it is open
