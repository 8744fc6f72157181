"""Whether services are distinguished from batch work: a recording of real programs, and the model judged on it."""
