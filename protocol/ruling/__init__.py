"""What the supernode keeps: its desks."""
