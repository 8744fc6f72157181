"""The placement policy: which CPUs batch groups may use."""
