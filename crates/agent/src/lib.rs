//! The bot in every PostgreSQL pod.
