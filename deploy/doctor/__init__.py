"""What is right and what is wrong with a computer, each with the command that mends it."""
