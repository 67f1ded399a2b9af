"""The outside world: where profiles come from and where attributes go. Nothing here knows Dagster."""
