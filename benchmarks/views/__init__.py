"""The views: what they cost, how soon they are there, and their pictures."""
