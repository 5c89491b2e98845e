"""The nouns of Stoker: functions, stacks, units, errors, and the client of the control API."""

__version__ = "0.1.0"
