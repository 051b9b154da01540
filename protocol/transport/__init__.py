"""How bytes arrive: packets, recovery, congestion, streams, connections. `rdt.py` and `sockets/` stand on it."""
