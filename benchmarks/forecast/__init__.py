"""How good forecasts of demand and of arrivals are, beside those of others."""
