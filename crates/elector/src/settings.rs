//! What an election is told at its start, and what is refused.

use std::time::Duration;

use ha::election::{InvalidTimes, Times};

/// The longest name of a candidate in bytes: that of a pod.
const LONGEST_NAME: usize = 253;

/// One process's part in an election.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The name of the Lease.
    pub election: String,
    /// The Lease's namespace.
    pub namespace: String,
    /// The name that others see.
    pub name: String,
    /// The pod's UID: a name alone is no identity.
    pub uid: Option<String>,
    /// How long a leader may be silent, 1 s to 1 h. Candidates of one election may differ in it.
    pub ttl: Duration,
    /// The higher, the sooner it takes a free Lease; 0 only watches.
    pub priority: u32,
    /// Takes a Lease that nobody ever held at once instead of after one TTL: for whoever makes the Lease beforehand, once,
    /// and whose acts do no harm twice.
    pub fresh_is_free: bool,
}

/// A part that nobody could play.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSettings {
    /// The name of the Lease is no name of an object.
    #[error(
        "the election's name {0:?} is no name of a Lease: at most 253 lower-case letters, digits, '-' and '.', with a letter or digit at both ends"
    )]
    Election(String),
    /// The name is empty.
    #[error("the id is empty")]
    NoName,
    /// The name is too long.
    #[error("the id has {0} bytes; {LONGEST_NAME} are the most")]
    LongName(usize),
    /// The name has characters that no line of a log should have.
    #[error("the id {0:?} has control characters")]
    UnprintableName(String),
    /// The TTL is out of bounds.
    #[error(transparent)]
    Times(#[from] InvalidTimes),
}

impl Settings {
    /// A TTL of 15 s, priority 1.
    pub fn new(election: &str, namespace: &str, name: &str) -> Self {
        Self {
            election: election.to_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            uid: None,
            ttl: Duration::from_secs(15),
            priority: 1,
            fresh_is_free: false,
        }
    }

    /// The times that follow.
    ///
    /// # Errors
    /// When anything is out of bounds.
    pub fn check(&self) -> Result<Times, InvalidSettings> {
        if !is_object_name(&self.election) {
            return Err(InvalidSettings::Election(self.election.clone()));
        }
        if self.name.is_empty() {
            return Err(InvalidSettings::NoName);
        }
        if self.name.len() > LONGEST_NAME {
            return Err(InvalidSettings::LongName(self.name.len()));
        }
        if self.name.chars().any(char::is_control) {
            return Err(InvalidSettings::UnprintableName(self.name.clone()));
        }
        Ok(Times::of_ttl(self.ttl)?)
    }

    /// Unique to this start of the process: two pods with one name, and two lives of one container, are told apart.
    pub(crate) fn identity(&self) -> String {
        let start: u32 = rand::random();
        match &self.uid {
            Some(uid) => format!("{}_{uid}_{start:08x}", self.name),
            None => format!("{}_{start:08x}{:08x}", self.name, rand::random::<u32>()),
        }
    }
}

fn is_object_name(name: &str) -> bool {
    let fits = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    let (first, last) = (name.bytes().next(), name.bytes().next_back());
    name.len() <= 253
        && first.is_some_and(fits)
        && last.is_some_and(fits)
        && name.bytes().all(|c| fits(c) || c == b'-' || c == b'.')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_out_of_bounds_is_one_clear_sentence() {
        let good = Settings::new("web", "shop", "web-0");
        assert!(good.check().is_ok());
        let said = |settings: Settings| settings.check().unwrap_err().to_string();
        assert!(said(Settings { election: "Web_1".into(), ..good.clone() }).contains("no name of a Lease"));
        assert!(said(Settings { name: String::new(), ..good.clone() }).contains("empty"));
        assert!(said(Settings { name: "x".repeat(300), ..good.clone() }).contains("300 bytes; 253"));
        assert!(said(Settings { name: "a\nb".into(), ..good.clone() }).contains("control"));
        for ttl in [Duration::ZERO, Duration::from_millis(100)] {
            assert!(said(Settings { ttl, ..good.clone() }).contains("one second is the least"));
        }
    }
}
