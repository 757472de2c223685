"""The saved small model: its configuration, its class, and the code file that travels with it."""
