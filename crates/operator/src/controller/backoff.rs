//! Pauses after errors, per cluster: doubled each time, with a cap and jitter. kube gives none.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use rand::RngExt as _;

const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(60);

/// Failures in a row, by the cluster's UID.
#[derive(Debug, Default)]
pub struct Backoff {
    failures: Mutex<HashMap<String, u32>>,
}

impl Backoff {
    /// The pause after one more failure.
    pub fn next(&self, uid: &str) -> Duration {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let count = failures.entry(uid.to_owned()).or_default();
        let pause = FIRST.saturating_mul(1 << (*count).min(6)).min(LONGEST);
        *count = count.saturating_add(1);
        pause.mul_f64(rand::rng().random_range(0.8..1.0))
    }

    /// Forgets the failures after a success.
    pub fn forget(&self, uid: &str) {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_cap_and_start_anew() {
        let backoff = Backoff::default();
        let pauses: Vec<Duration> = (0..20).map(|_| backoff.next("u")).collect();
        assert!(pauses[0] <= FIRST && pauses[19] <= LONGEST && pauses[19] > Duration::from_secs(40));
        backoff.forget("u");
        assert!(backoff.next("u") <= FIRST);
    }
}
