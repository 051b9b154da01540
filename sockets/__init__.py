"""The door to the network: the only rooms that hold a socket."""
