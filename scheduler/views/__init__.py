"""What people look at: the live view, the exporter of metrics, the page. Each is a process of its own that reads the frame and the
stores, and asks the daemon for nothing."""
