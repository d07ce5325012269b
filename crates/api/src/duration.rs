//! Durations as users write them: `500ms`, `2s`, `1m30s`.
//!
//! Decides the one spelling that the schema, CEL's `duration()` and this code all accept. Bounds belong to the field,
//! not to the type. Proved by the tests below.

use std::{fmt, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// A span of time in whole milliseconds, written as `500ms`, `2s`, `5m` or a sum of such parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Duration(u64);

/// Why a text is not a [`Duration`].
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{text:?} is not a duration; write for example 500ms, 2s or 1m30s")]
pub struct DurationError {
    text: String,
}

/// The syntax, as a CEL condition on `field`.
pub(crate) fn cel_is_duration(field: &str) -> String {
    format!("{field}.matches('^([0-9]{{1,7}}(ms|s|m|h)){{1,4}}$')")
}

/// A CEL rule on a duration: its syntax and its bounds.
pub(crate) fn cel_between(least: &str, most: &str) -> String {
    let syntax = cel_is_duration("self");
    format!("{syntax} && duration(self) >= duration('{least}') && duration(self) <= duration('{most}')")
}

impl Duration {
    /// So many milliseconds.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// So many seconds.
    pub const fn from_secs(seconds: u64) -> Self {
        Self(seconds * 1000)
    }

    /// The whole span in milliseconds.
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// The same span in the standard library's type.
    pub const fn as_std(self) -> std::time::Duration {
        std::time::Duration::from_millis(self.0)
    }
}

impl FromStr for Duration {
    type Err = DurationError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text).map(Self).ok_or_else(|| DurationError { text: text.to_owned() })
    }
}

fn parse(text: &str) -> Option<u64> {
    let mut rest = text;
    let mut total: u64 = 0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let (number, after) = rest.split_at(digits);
        let number: u64 = number.parse().ok()?;
        let letters = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, tail) = after.split_at(letters);
        let factor = match unit {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => return None,
        };
        total = total.checked_add(number.checked_mul(factor)?)?;
        rest = tail;
    }
    Some(total)
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_multiple_of(1000) { write!(f, "{}s", self.0 / 1000) } else { write!(f, "{}ms", self.0) }
    }
}

impl Serialize for Duration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Duration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

impl JsonSchema for Duration {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Duration".into()
    }

    /// Without a pattern: the rule of each field says what to write, which a regular expression does not.
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "minLength": 2,
            "maxLength": 32,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_what_users_write() {
        for (text, millis) in [("2s", 2000), ("500ms", 500), ("1m30s", 90_000), ("1h", 3_600_000), ("0s", 0)]
        {
            assert_eq!(text.parse::<Duration>().unwrap().as_millis(), millis, "{text}");
        }
    }

    #[test]
    fn refuses_the_rest_with_an_example() {
        for text in ["", "2", "s", "2 s", "-1s", "1.5s", "2d", "99999999999999999999s", "2s ", "２s"] {
            let error = text.parse::<Duration>().unwrap_err();
            assert!(error.to_string().contains("1m30s"), "{text}");
        }
    }

    #[test]
    fn writes_the_canonical_form() {
        assert_eq!(Duration::from_millis(90_000).to_string(), "90s");
        assert_eq!(Duration::from_millis(1500).to_string(), "1500ms");
    }
}
