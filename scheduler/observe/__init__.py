"""Turns snapshots into ticks: groups, rates, classes, forecasts and scores. Pure: no clock, no file."""
