"""Fakes of what the runtime needs of the world: clock, machine, kernel, pool. Shipped, for tests of your own configuration."""
