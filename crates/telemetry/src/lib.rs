//! Logs and error reports of every binary.
