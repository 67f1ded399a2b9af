"""Dagster assets that turn profiles into attribute frames, push what changed and write down what failed."""
