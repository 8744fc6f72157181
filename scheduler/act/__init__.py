"""Does what was decided, writes the ledger first, and undoes it."""
