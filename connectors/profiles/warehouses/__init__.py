"""Warehouses: one module per kind, one table of them, and what is asked of each and how its answer is written."""
