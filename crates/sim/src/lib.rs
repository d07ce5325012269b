//! Seeded simulator of the protocol.
