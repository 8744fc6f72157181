"""The parts of the daemon besides its loop: its socket, its own priority and budget, recording, retraining, doctor."""
