"""The knobs of the kernel: nice, affinity, policy, autogroup, weights, slices, fences."""
