"""Reads the machine: /proc, sockets, cgroups, what threads wait for. Changes nothing, decides nothing."""
