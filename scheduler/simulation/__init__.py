"""A pool in a computer's head: the policy that runs in the daemon, peers' rules and an oracle on the same arrivals."""
