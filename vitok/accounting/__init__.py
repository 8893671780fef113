"""Analytic parameters, FLOPs, memory and hours: arithmetic on sizes."""
