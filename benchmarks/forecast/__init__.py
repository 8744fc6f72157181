"""How good forecasts of demand and of arrivals are, compared with those of others."""
