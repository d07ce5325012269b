//! Who of several equal processes acts: election by compare-and-swap on one Lease, without any database.
//!
//! The elector uses it for any application, and the operator's replicas among themselves. It decides when to read, take,
//! renew, hand over and release, and until when this candidate may act. Time is an argument and always the observer's own: a
//! candidate takes over when *it* has seen no renewal for the TTL *of the record*, and acts only until a deadline that counts
//! from *before* the request that is known to have succeeded. The clocks of two machines are never compared.
//!
//! It must never let two candidates act at once while their clocks run at rates within [`CLOCK_RATE_PERMILLE`] of the true
//! one, nor give out an epoch (the fencing token) that is not above every earlier one. A missing Lease is unknown, not free:
//! it is waited for as a silent holder is, since whoever held it may still act. `tests::no_interleaving_lets_two_lead` walks
//! every order of requests, landings and lost answers of two candidates; `matriarch-elector-sim` adds clocks, pauses and
//! every fault of an API server to three and more, and switches each of [`Rules`] off once.

mod candidate;
mod record;
mod rules;
mod times;

pub use candidate::{Candidate, NotInOffice, Seen};
pub use record::{Answer, Candidacy, Content, Next, Record, Request};
pub use rules::Rules;
pub use times::{CLOCK_RATE_PERMILLE, InvalidTimes, Times};

#[cfg(test)]
mod tests;
