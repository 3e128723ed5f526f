"""The embedded world: Postgres, Supabase's HTTP API, pg_net's job, simulated terminals."""
