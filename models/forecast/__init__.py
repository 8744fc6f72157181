"""Forecasts of a series: experts, the network, seasonality, drift."""
