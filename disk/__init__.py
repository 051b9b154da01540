"""What touches the disk; `disk/library.py` puts it together, and each module says which thread may use it."""
