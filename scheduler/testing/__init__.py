"""Fakes of what the runtime needs from the world: clock, machine, kernel, pool. Shipped, so you can test your own configuration."""
