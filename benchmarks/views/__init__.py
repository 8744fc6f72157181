"""What the views cost, and whether they keep up."""
