"""Tests of sql/ on real Postgres servers."""
