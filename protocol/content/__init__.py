"""What a shared thing is: names, pieces, listings."""
