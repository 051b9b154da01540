"""Which connection a packet is for: by this side's id, by the client's in an INIT, by the remote's in a RESET."""

from __future__ import annotations

from typing import Dict, Optional, Tuple

from protocol.fields import Address
from protocol.transport.connection import Connection


class Directory:
    """The connections of one endpoint, each under all its names, with its present address, until it is forgotten."""

    def __init__(self) -> None:
        self.by_local: Dict[bytes, Connection] = {}
        # A repeated INIT finds by its client's id what the first one made; a RESET names the remote's id alone, for who
        # sends it has forgotten ours.
        self.by_client: Dict[Tuple[Address, bytes], Connection] = {}
        self.by_remote: Dict[Tuple[Address, bytes], Connection] = {}

    def add(self, connection: Connection) -> None:
        """It was made here, to go to a remote or for one who came: its own id is known."""
        self.by_local[connection.local_id] = connection

    def know_client(self, connection: Connection) -> None:
        """It was made for that client's INIT."""
        self.by_client[connection.address, connection.handshake.client_id] = connection

    def know_remote(self, connection: Connection) -> None:
        """The handshake told the remote's id."""
        self.by_remote[connection.address, connection.remote_id] = connection

    def move(self, connection: Connection, before: Address) -> None:
        """It is at another address than before."""
        self.by_remote.pop((before, connection.remote_id), None)
        self.by_client.pop((before, connection.handshake.client_id), None)
        self.know_remote(connection)
        if not connection.is_client:
            self.know_client(connection)

    def forget(self, connection: Connection) -> None:
        """It is over; only its late packets will ever come."""
        self.by_local.pop(connection.local_id, None)
        self.by_client.pop((connection.address, connection.handshake.client_id), None)
        self.by_remote.pop((connection.address, connection.remote_id), None)

    def of_client(self, address: Address, client_id: bytes) -> Optional[Connection]:
        """What an earlier INIT of that client made."""
        return self.by_client.get((address, client_id))

    def of_remote(self, address: Address, remote_id: bytes) -> Optional[Connection]:
        """The connection that the remote there calls so."""
        return self.by_remote.get((address, remote_id))
