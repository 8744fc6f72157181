"""Shows what was decided, why, and what came of it: pages, tables, log lines."""
