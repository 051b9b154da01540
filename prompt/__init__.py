"""What a person types and sees: the terminal, the questions and flags, the commands."""
