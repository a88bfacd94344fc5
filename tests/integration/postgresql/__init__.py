"""The ledger on PostgreSQL: what holds on SQLite holds in production."""
