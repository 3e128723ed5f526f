"""Tests that start a whole world: Postgres, Supabase's stand-in, terminals and the receiver."""
