"""Everything that touches the kernel. Roots of /proc and /sys are arguments."""
