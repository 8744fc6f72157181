"""`nicety notify`: runs a command of the user's when something happens that somebody should hear of. Its own process."""
