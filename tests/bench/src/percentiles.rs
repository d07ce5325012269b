//! Percentiles of the nearest rank: every figure was measured, none is between two.

/// The percentile of these values, in any order; `None` of none.
pub(crate) fn percentile(values: impl IntoIterator<Item = f64>, percent: usize) -> Option<f64> {
    let mut sorted: Vec<f64> = values.into_iter().collect();
    sorted.sort_by(f64::total_cmp);
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied()
}

/// In words for a table.
pub(crate) fn told(value: Option<f64>, decimals: usize) -> String {
    value.map_or_else(|| "–".to_owned(), |value| format!("{value:.decimals$}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_nearest_rank() {
        let values = || (1..=10).rev().map(f64::from);
        let known = [50, 90, 99, 100].map(|percent| percentile(values(), percent));
        assert_eq!(known, [Some(5.0), Some(9.0), Some(10.0), Some(10.0)]);
        assert_eq!(percentile([7.0], 50), Some(7.0));
        assert_eq!((percentile([], 50), told(None, 1)), (None, "–".to_owned()));
    }
}
