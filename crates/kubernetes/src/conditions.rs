//! Conditions whose `lastTransitionTime` changes only when their status does: a controller that stamps each
//! write wakes itself for ever.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// Longest message that the API accepts.
const MESSAGE_BYTES: usize = 32_768;

/// A condition as it should be; its time follows from what was there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Its type, such as `Ready`.
    pub type_: String,
    /// True, false, or `None` for unknown.
    pub status: Option<bool>,
    /// One word in PascalCase.
    pub reason: String,
    /// One sentence for people.
    pub message: String,
}

impl Wanted {
    /// A condition that is known.
    pub fn new(
        type_: impl Into<String>,
        status: bool,
        reason: impl Into<String>,
        message: impl Into<String>,
    ) -> Self {
        Self { type_: type_.into(), status: Some(status), reason: reason.into(), message: message.into() }
    }

    /// A condition of which nothing is known.
    pub fn unknown(type_: impl Into<String>, reason: impl Into<String>, message: impl Into<String>) -> Self {
        Self { type_: type_.into(), status: None, reason: reason.into(), message: message.into() }
    }
}

/// The wanted conditions, sorted by type, each with the time of its last transition: kept from `there` when
/// the status is the same, else `now`.
pub fn merge(
    there: &[Condition],
    wanted: Vec<Wanted>,
    generation: Option<i64>,
    now: Timestamp,
) -> Vec<Condition> {
    let mut merged: Vec<Condition> = wanted
        .into_iter()
        .map(|wanted| {
            let status = wanted.status.map_or("Unknown", |status| if status { "True" } else { "False" });
            let since = there
                .iter()
                .find(|old| old.type_ == wanted.type_ && old.status == status)
                .map_or(Time(now), |old| old.last_transition_time.clone());
            let mut message = wanted.message;
            while message.len() > MESSAGE_BYTES {
                message.pop();
            }
            Condition {
                last_transition_time: since,
                message,
                observed_generation: generation,
                // The API refuses an empty reason.
                reason: if wanted.reason.is_empty() { "Unspecified".to_owned() } else { wanted.reason },
                status: status.to_owned(),
                type_: wanted.type_,
            }
        })
        .collect();
    merged.sort_by(|a, b| a.type_.cmp(&b.type_));
    merged
}

/// The status of a condition by its type: `None` when it is not there or unknown.
pub fn status_of(conditions: &[Condition], type_: &str) -> Option<bool> {
    match conditions.iter().find(|condition| condition.type_ == type_)?.status.as_str() {
        "True" => Some(true),
        "False" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::{Wanted, merge, status_of};

    #[test]
    fn the_time_changes_with_the_status_only() {
        let at = |second| jiff::Timestamp::from_second(second).unwrap();
        let first = merge(&[], vec![Wanted::new("Ready", false, "Cloning", "1 of 3")], Some(1), at(10));
        let second = merge(&first, vec![Wanted::new("Ready", false, "Cloning", "2 of 3")], Some(2), at(20));
        assert_eq!(second[0].last_transition_time.0, at(10));
        assert_eq!((second[0].message.as_str(), second[0].observed_generation), ("2 of 3", Some(2)));
        let third = merge(&second, vec![Wanted::unknown("Ready", "", "")], Some(2), at(30));
        assert_eq!(third[0].last_transition_time.0, at(30));
        assert_eq!((status_of(&second, "Ready"), status_of(&third, "Ready")), (Some(false), None));
        assert_eq!(third[0].reason, "Unspecified");
    }
}
