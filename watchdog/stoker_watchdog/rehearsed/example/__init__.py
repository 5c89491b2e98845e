"""The function that the fork server rehearses with."""
