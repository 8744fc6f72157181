"""Readers of bytes from outside, given damaged, hostile and random bytes. docs/fuzzing.md says how."""
