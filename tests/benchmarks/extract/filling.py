"""Fills one table of twelve columns of profiles, the same in every warehouse, by the warehouse's own SQL."""

import sqlite3
from contextlib import closing
from pathlib import Path

import adbc_driver_postgresql.dbapi
import duckdb

from tests.mariadb_server import MariaDBServer

# {i} is the row's number, {text} a cast to text, {mod} a remainder, {day} and {moment} a date and a time of the row
_PROFILES = (
    "SELECT concat('u', {i}) AS user_id, "
    "CASE WHEN {i} % 5 < 2 THEN concat('63CB66FF-E86B-6E5E-59A7-', 100000000000 + {i}) END AS device_id, "
    "CASE WHEN {i} % 13 > 0 THEN 'female' END AS gender, "
    "CASE {i} % 4 WHEN 0 THEN '上海' WHEN 1 THEN 'Zürich' WHEN 2 THEN '西双版纳傣族自治州' ELSE 'Singapore' END "
    "AS city, "
    "cast({i} % 50 AS {int}) AS level, {day} AS vip_until, cast({i} % 100000 / 100.0 AS decimal(12, 2)) AS balance, "
    "cast({i} AS {double}) / 7 AS score, CASE WHEN {i} % 14 > 0 THEN concat('Noah ♥ ', {i}) END AS nickname, "
    "{truth} AS push_enabled, {moment} AS signed_up_at, {moment} AS updated_at FROM {series}"
)


def fill_postgresql(uri: str, rows: int) -> None:
    query = _PROFILES.format(
        i="i", int="int", double="double precision", truth="i % 3 > 0", series=f"generate_series(1, {rows}) AS s(i)",
        day="CASE WHEN i % 9 = 0 THEN DATE '2025-01-01' + (i % 300)::int END",
        moment="TIMESTAMPTZ '2024-01-01 00:00:00Z' + i * INTERVAL '1.000001 second'",
    )  # fmt: skip
    with adbc_driver_postgresql.dbapi.connect(uri, autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute(f"CREATE TABLE profiles AS {query}")
        cursor.execute("ANALYZE profiles")


def fill_mariadb(server: MariaDBServer, rows: int) -> None:
    query = _PROFILES.format(
        i="seq", int="int", double="double", truth="cast(seq % 3 > 0 AS int)", series=f"seq_1_to_{rows}",
        day="CASE WHEN seq % 9 = 0 THEN DATE '2025-01-01' + INTERVAL (seq % 300) DAY END",
        moment="TIMESTAMP '2024-01-01 00:00:00' + INTERVAL (seq * 1000001) MICROSECOND",
    )  # fmt: skip
    server.run(f"CREATE TABLE profiles (push_enabled boolean) {query}")


def fill_duckdb(file: Path, rows: int) -> None:
    query = _PROFILES.format(
        i="i", int="int", double="double", truth="i % 3 > 0", series=f"range(1, {rows + 1}) AS s(i)",
        day="CASE WHEN i % 9 = 0 THEN DATE '2025-01-01' + (i % 300)::int END",
        moment="TIMESTAMPTZ '2024-01-01 00:00:00Z' + to_microseconds(i * 1000001)",
    )  # fmt: skip
    with duckdb.connect(str(file)) as connection:
        connection.execute(f"CREATE TABLE profiles AS {query}")


def fill_sqlite(file: Path, rows: int) -> None:
    query = _PROFILES.format(
        i="i", int="integer", double="real", truth="i % 3 > 0", series="s",
        day="CASE WHEN i % 9 = 0 THEN date('2025-01-01', (i % 300) || ' days') END",
        moment="datetime('2024-01-01', i || ' seconds')",
    )  # fmt: skip
    series = f"WITH RECURSIVE s(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM s WHERE i < {rows})"
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.create_function("concat", 2, lambda one, other: f"{one}{other}", deterministic=True)
        connection.execute(
            "CREATE TABLE profiles (user_id text, device_id text, gender text, city text, level integer, "
            "vip_until date, balance decimal(12, 2), score real, nickname text, "
            "push_enabled boolean, signed_up_at datetime, "
            "updated_at datetime)"
        )
        connection.execute(f"INSERT INTO profiles {series} {query}")
