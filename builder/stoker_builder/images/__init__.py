"""Images of functions: who builds them (`builder.py`), from what (`context.py`), and under which rules (`rules.py`)."""
