"""The hands: what changes values in the kernel, and puts them back. Standard library only.

The ledger comes first, then the knob, then reading back. Everything here can undo a change without the rest of nicety: no policy,
no model, no configuration.
"""
