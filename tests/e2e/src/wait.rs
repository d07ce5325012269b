//! Waiting for a condition, with a deadline, and with what was seen when it passes. There is no other way to wait here.

use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(100);
/// One look may take this long before it counts as "nothing seen".
const LOOK: Duration = Duration::from_secs(20);

/// What one look found: the thing itself, or why not yet.
pub(crate) type Look<T> = Result<std::result::Result<T, String>>;

/// Looks until the thing is there or the bound has passed; returns it and how long it took.
///
/// An error of a look is not an error of the wait: the API server may be away on purpose.
pub(crate) async fn until<T>(
    what: &str,
    bound: Duration,
    mut look: impl AsyncFnMut() -> Look<T>,
) -> Result<(T, Duration)> {
    let start = Instant::now();
    loop {
        let seen = match tokio::time::timeout(LOOK, look()).await {
            Ok(Ok(Ok(found))) => return Ok((found, start.elapsed())),
            Ok(Ok(Err(seen))) => seen,
            Ok(Err(error)) => format!("{error:#}"),
            Err(_) => format!("a look took longer than {LOOK:?}"),
        };
        if start.elapsed() >= bound {
            return Err(anyhow!("{what}: not within {bound:?}; last seen: {seen}"));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// For the look of a condition without a value.
#[expect(clippy::unnecessary_wraps, reason = "it is the last expression of a look, which may fail")]
pub(crate) fn when(condition: bool, otherwise: impl FnOnce() -> String) -> Look<()> {
    Ok(if condition { Ok(()) } else { Err(otherwise()) })
}
