"""Tests of receiver/supabase."""
