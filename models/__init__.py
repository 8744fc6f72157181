"""What is measured and what is predicted. Pure and numpy only, but for `artifact.py`, which reads and writes model files."""
