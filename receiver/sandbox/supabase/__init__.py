"""Supabase's HTTP API: REST, sign-in and storage."""
