"""What may be configured, and where everything lies. Knows files and environment, no machine."""
