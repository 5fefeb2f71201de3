"""Metrics: plain functions from plain data to `list[Measurement]`, one file per metric."""
