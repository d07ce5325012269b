//! Facts of PostgreSQL that the protocol respects (§8), each by its number, on every major. What our own functions make
//! of them stands with those functions; here PostgreSQL itself is asked, so that a release that changes one is noticed.

mod commit;
mod position;
mod process;
mod promotion;
mod rewind;
mod stream;
