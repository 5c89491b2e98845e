"""The process of one run: checkout, stack, then each function. It knows no forge and no store."""
