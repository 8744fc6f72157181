"""Waiting work of command pools: what each kind of queue keeps where, and how it is counted without ever waiting for it."""
