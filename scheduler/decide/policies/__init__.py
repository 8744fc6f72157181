"""Policies: each proposes changes from a tick; none of them acts, and the guard may refuse."""
