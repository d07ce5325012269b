//! PostgreSQL's own programs as functions with typed results.

pub mod basebackup;
pub mod controldata;
pub mod initdb;
pub mod rewind;
pub mod waldump;
