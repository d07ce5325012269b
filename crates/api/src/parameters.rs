//! Which parameters of PostgreSQL belong to users and which to the protocol.
//!
//! Decides what is refused, both in the CRD (exact names, CEL) and in code (any case, syntax, minimum values), so that
//! no key or value can smuggle a line into a configuration file. The list follows `ha-protocol.md` §2 "Settings".

/// The most parameters that a cluster may set.
pub const MAX_PARAMETERS: u32 = 256;

pub use ::parameters::{MINIMUMS, OWNED, hba};

/// Why a parameter is refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ParameterError {
    /// The name has characters that no parameter has.
    #[error(
        "postgres.parameters: {name:?} is not the name of a parameter; names have letters, digits, _ and one dot"
    )]
    Name {
        /// The name as written.
        name: String,
    },
    /// The protocol rests on it.
    #[error("postgres.parameters.{name}: belongs to the operator; remove it")]
    Owned {
        /// The name as written.
        name: String,
    },
    /// It has a field of its own.
    #[error("postgres.parameters.{name}: write it in {field} instead")]
    OwnField {
        /// The name as written.
        name: String,
        /// The field to use.
        field: &'static str,
    },
    /// The value has control characters or is too long.
    #[error("postgres.parameters.{name}: the value may have at most 1024 characters and no line breaks")]
    Value {
        /// The name as written.
        name: String,
    },
    /// The value is below what replication needs.
    #[error("postgres.parameters.{name}: write {minimum} or more")]
    TooLow {
        /// The name as written.
        name: String,
        /// The least value.
        minimum: u64,
    },
    /// The same parameter is there twice in different case.
    #[error("postgres.parameters.{name}: is there twice; names are the same in upper and lower case")]
    Twice {
        /// The name as written.
        name: String,
    },
}

/// Checks one parameter. Both the operator (before anything is built) and the agent (before anything is rendered) call
/// this, since each may meet the other in a different version.
pub fn check(name: &str, value: &str) -> Result<(), ParameterError> {
    let is_word = |word: &str| {
        word.bytes().next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
            && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'$')
    };
    let well_formed = match name.split_once('.') {
        Some((class, rest)) => is_word(class) && is_word(rest),
        None => is_word(name),
    };
    let owner = || name.to_owned();
    if !well_formed || name.len() > 127 {
        return Err(ParameterError::Name { name: owner() });
    }
    let lower = name.to_ascii_lowercase();
    if lower == "shared_preload_libraries" {
        return Err(ParameterError::OwnField { name: owner(), field: "postgres.sharedPreloadLibraries" });
    }
    if ::parameters::is_owned(name) {
        return Err(ParameterError::Owned { name: owner() });
    }
    if value.chars().count() > crate::scalar::MAX_LENGTH as usize || value.chars().any(char::is_control) {
        return Err(ParameterError::Value { name: owner() });
    }
    if let Some(minimum) = ::parameters::too_low(name, value) {
        return Err(ParameterError::TooLow { name: owner(), minimum });
    }
    Ok(())
}

/// Checks all parameters; the first error in order of names.
pub fn check_all<'a>(parameters: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<(), ParameterError> {
    let mut seen = std::collections::BTreeSet::new();
    for (name, value) in parameters {
        check(name, value)?;
        if !seen.insert(name.to_ascii_lowercase()) {
            return Err(ParameterError::Twice { name: name.to_owned() });
        }
    }
    Ok(())
}

fn cel_list() -> String {
    let quoted: Vec<_> = OWNED.iter().map(|name| format!("'{name}'")).collect();
    format!("[{}]", quoted.join(","))
}

/// The rule on the map: a lookup per owned name is cheap, a pass over all keys is not (K23).
pub(crate) fn cel_rule() -> String {
    format!("!{}.exists(k, k in self)", cel_list())
}

/// Names them all: an expression that names only those that were refused is too costly for the API server.
pub(crate) fn cel_message() -> String {
    format!(
        "postgres.parameters: remove what belongs to the operator or to another field: {}",
        OWNED.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_what_users_need() {
        for (name, value) in [
            ("shared_buffers", "1GB"),
            ("pg_stat_statements.max", "5000"),
            ("max_wal_senders", "40"),
            ("application_name", "%m [%p] 'q' \\ "),
            ("DateStyle", "ISO, DMY"),
        ] {
            assert_eq!(check(name, value), Ok(()), "{name}");
        }
    }

    #[test]
    fn refuses_owned_names_in_any_case() {
        for name in ["fsync", "FSYNC", "Synchronous_Standby_Names", "primary_conninfo", "restore_command"] {
            assert!(matches!(check(name, "off"), Err(ParameterError::Owned { .. })), "{name}");
        }
        assert!(
            check("shared_preload_libraries", "x")
                .unwrap_err()
                .to_string()
                .contains("sharedPreloadLibraries")
        );
    }

    #[test]
    fn nothing_smuggles_a_line() {
        assert!(matches!(check("work_mem", "1MB\nfsync=off"), Err(ParameterError::Value { .. })));
        for name in ["work_mem = 1\nfsync", "work mem", "", "a.b.c", "1x", "wörk", "x'"] {
            assert!(matches!(check(name, "1"), Err(ParameterError::Name { .. })), "{name}");
        }
    }

    #[test]
    fn replication_keeps_room() {
        assert_eq!(
            check("max_replication_slots", "5"),
            Err(ParameterError::TooLow { name: "max_replication_slots".into(), minimum: 20 })
        );
    }

    #[test]
    fn the_same_name_in_another_case_is_the_same() {
        assert!(check_all([("Work_Mem", "1MB"), ("work_mem", "2MB")]).is_err());
    }

    #[test]
    fn the_list_is_sorted_and_unique() {
        assert!(OWNED.windows(2).all(|pair| pair[0] < pair[1]));
    }
}
