//! Work on all cores, in an order that does not matter, with results in an order that does.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// Does `work` for each number from 0 below `count`; results by number, and the processor time of all threads in
/// seconds. Stops giving out work once `enough` says so.
pub fn all<T: Send>(
    jobs: usize,
    count: u64,
    work: impl Fn(u64) -> T + Sync,
    enough: impl Fn(&T) -> bool + Sync,
) -> (Vec<(u64, T)>, f64) {
    let next = AtomicU64::new(0);
    let done = Mutex::new((Vec::new(), 0.0));
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        break;
                    }
                    let result = work(number);
                    if enough(&result) {
                        next.store(count, Ordering::Relaxed);
                    }
                    if let Ok(mut done) = done.lock() {
                        done.0.push((number, result));
                    }
                }
                if let Ok(mut done) = done.lock() {
                    done.1 += processor_seconds();
                }
            });
        }
    });
    let (mut results, seconds) = done.into_inner().unwrap_or_default();
    results.sort_by_key(|(number, _)| *number);
    (results, seconds)
}

/// How many threads there are cores for.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Processor time of this thread; other work on the machine does not count.
#[allow(clippy::cast_precision_loss, reason = "only shown")]
fn processor_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    stat.split(' ').next().and_then(|nanos| nanos.parse::<u64>().ok()).map_or(0.0, |nanos| nanos as f64 / 1e9)
}
