//! Sizes in bytes, written as Kubernetes quantities: `10Gi`, `16Mi`, `1.5Gi`.
//!
//! Decides which of the many spellings of a quantity are accepted for a size; milli-bytes and exponents are not.
//! Proved by the tests below.

use std::{fmt, str::FromStr};

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Size(u64);

/// Why a text is not a [`Size`].
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{text:?} is not a size; write for example 10Gi or 512Mi")]
pub struct SizeError {
    text: String,
}

const UNITS: [(&str, u64); 11] = [
    ("", 1),
    ("Ki", 1 << 10),
    ("Mi", 1 << 20),
    ("Gi", 1 << 30),
    ("Ti", 1 << 40),
    ("Pi", 1 << 50),
    ("k", 1000),
    ("M", 1_000_000),
    ("G", 1_000_000_000),
    ("T", 1_000_000_000_000),
    ("P", 1_000_000_000_000_000),
];

/// A CEL rule on a size: its syntax and its least value.
pub(crate) fn cel_at_least(least: &str) -> String {
    let syntax = cel_is_size("self");
    format!("{syntax} && !quantity(self).isLessThan(quantity('{least}'))")
}

/// The syntax, as a CEL condition on `field`.
pub(crate) fn cel_is_size(field: &str) -> String {
    format!(r"{field}.matches('^[0-9]{{1,15}}(\\.[0-9]{{1,3}})?(Ki|Mi|Gi|Ti|Pi|k|M|G|T|P)?$')")
}

impl Size {
    /// So many bytes.
    pub const fn from_bytes(bytes: u64) -> Self {
        Self(bytes)
    }

    /// So many mebibytes.
    pub const fn from_mebibytes(mebibytes: u64) -> Self {
        Self(mebibytes << 20)
    }

    /// The size in bytes.
    pub const fn as_bytes(self) -> u64 {
        self.0
    }

    /// The same size as a Kubernetes quantity.
    pub fn to_quantity(self) -> Quantity {
        Quantity(self.to_string())
    }
}

impl FromStr for Size {
    type Err = SizeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text).map(Self).ok_or_else(|| SizeError { text: text.to_owned() })
    }
}

fn parse(text: &str) -> Option<u64> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let factor = UNITS.iter().find(|(name, _)| *name == unit)?.1;
    let (whole, fraction) = match number.split_once('.') {
        Some((whole, fraction)) if (1..=3).contains(&fraction.len()) => (whole, fraction),
        Some(_) => return None,
        None => (number, ""),
    };
    let bytes = whole.parse::<u64>().ok()?.checked_mul(factor)?;
    if fraction.is_empty() {
        return Some(bytes);
    }
    let scale = 10_u64.pow(u32::try_from(fraction.len()).ok()?);
    let part = fraction.parse::<u64>().ok()?.checked_mul(factor)? / scale;
    bytes.checked_add(part)
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = UNITS
            .iter()
            .filter(|(name, factor)| {
                name.ends_with('i') && self.0 >= *factor && self.0.is_multiple_of(*factor)
            })
            .max_by_key(|(_, factor)| *factor);
        match unit {
            Some((name, factor)) => write!(f, "{}{name}", self.0 / factor),
            None => write!(f, "{}", self.0),
        }
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

impl JsonSchema for Size {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Size".into()
    }

    /// Without a pattern: the rule of each field says what to write, which a regular expression does not.
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "minLength": 1,
            "maxLength": 24,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_quantities() {
        for (text, bytes) in
            [("10Gi", 10 << 30), ("16Mi", 16 << 20), ("1.5Gi", 3 << 29), ("1G", 1_000_000_000), ("42", 42)]
        {
            assert_eq!(text.parse::<Size>().unwrap().as_bytes(), bytes, "{text}");
        }
    }

    #[test]
    fn refuses_the_rest_with_an_example() {
        for text in
            ["", "Gi", "-1Gi", "10GB", "10 Gi", "1.Gi", "1.2345Gi", "100m", "1e3", "99999999999999999P"]
        {
            assert!(text.parse::<Size>().unwrap_err().to_string().contains("10Gi"), "{text}");
        }
    }

    #[test]
    fn writes_the_largest_unit_that_divides() {
        for (text, canonical) in [("1024Mi", "1Gi"), ("1.5Gi", "1536Mi"), ("1000", "1000"), ("0", "0")] {
            assert_eq!(text.parse::<Size>().unwrap().to_string(), canonical);
        }
    }
}
