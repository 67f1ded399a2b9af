"""Where profiles come from: Parquet, tables of a lake, warehouses. Everything ends as Parquet files on disk."""
