//! Adapter over one PostgreSQL.
