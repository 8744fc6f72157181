"""Measurement and prediction. Pure and numpy only, except `artifact.py`, which reads and writes model files."""
