"""Carries out decisions, writes the ledger first, and undoes changes."""
