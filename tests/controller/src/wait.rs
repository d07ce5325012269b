//! Waiting for a condition, with a bound, and with what was seen when the bound passes.

use std::fmt::Debug;
use std::future::Future;
use std::time::{Duration, Instant};

/// Bound of every wait that has no other: generous, it only catches a hang.
pub const BOUND: Duration = Duration::from_secs(60);
/// How often is looked.
const PACE: Duration = Duration::from_millis(100);

/// Looks until `look` says `Ok`; its last `Err` is what was seen instead.
pub async fn until<T, E, F>(what: &str, look: impl FnMut() -> F) -> T
where
    E: Debug,
    F: Future<Output = Result<T, E>>,
{
    until_within(BOUND, what, look).await
}

/// The same with another bound.
pub async fn until_within<T, E, F>(bound: Duration, what: &str, mut look: impl FnMut() -> F) -> T
where
    E: Debug,
    F: Future<Output = Result<T, E>>,
{
    let started = Instant::now();
    loop {
        match look().await {
            Ok(seen) => return seen,
            Err(seen) if started.elapsed() > bound => {
                panic!("{what} did not come about within {bound:?}; seen: {seen:#?}")
            }
            Err(_) => tokio::time::sleep(PACE).await,
        }
    }
}

/// Looks for as long as `during`; the first `Err` is a failure.
pub async fn always<E, F>(during: Duration, what: &str, mut look: impl FnMut() -> F)
where
    E: Debug,
    F: Future<Output = Result<(), E>>,
{
    let started = Instant::now();
    while started.elapsed() < during {
        if let Err(seen) = look().await {
            panic!("{what} was no longer so after {:?}: {seen:#?}", started.elapsed());
        }
        tokio::time::sleep(PACE).await;
    }
}
