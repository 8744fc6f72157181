"""What the daemon costs and where it stands itself."""
