"""The network key, and what is made of it: pure, and used at the start only. `disk/credentials.py` stands on it."""
