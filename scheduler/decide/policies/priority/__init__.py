"""The priority policy: demotes batch groups for interactive ones that wait."""
