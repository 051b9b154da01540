"""What touches the disk; `library.py` puts it together, and each module says which thread may use it."""
