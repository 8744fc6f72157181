"""How close placements are to the optimum."""
