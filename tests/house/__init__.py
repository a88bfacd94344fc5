"""What keeps the house in order: the environment, and checks that need more than one file."""
