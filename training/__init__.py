"""Offline training: traces in, artefacts out. The only layer that imports scikit-learn."""
