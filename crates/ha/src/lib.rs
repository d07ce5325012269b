//! The high-availability protocol: pure decisions.
