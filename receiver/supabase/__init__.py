"""What is asked of Supabase: HR's tables, the ledger, the keys of access tokens."""
