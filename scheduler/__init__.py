"""The runtime: reads the machine, predicts, decides, acts, explains. Never imports `nicety.training` or scikit-learn."""
