"""What a daemon is besides its loop: its socket, its own priority and budget, recording, retraining, doctor."""
