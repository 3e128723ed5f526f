"""A real Postgres with what Supabase and the company have in it."""
