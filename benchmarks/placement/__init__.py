"""How near placements come to the best ones."""
