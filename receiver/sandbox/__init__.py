"""The embedded world: Postgres, Supabase's HTTP face, pg_net's job, simulated terminals."""
