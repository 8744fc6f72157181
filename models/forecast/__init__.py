"""What a series will be: experts, the network, seasonality, drift."""
