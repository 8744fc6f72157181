"""Durable records in SQLite: traces, decision log, ledger."""
