"""Where profiles come from: Parquet files and warehouses. Everything ends as Parquet files on disk."""
