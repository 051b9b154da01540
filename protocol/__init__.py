"""What the transport and the roles are made of: pure, with no socket, no thread, no clock and no file."""
