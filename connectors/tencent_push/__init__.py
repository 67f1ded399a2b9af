"""Tencent Cloud Chat Push: its attribute API, a sink for changes, and an emulator to run and test against."""
