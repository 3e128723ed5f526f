"""Supabase's HTTP face: REST, sign-in and storage."""
