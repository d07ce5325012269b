//! `postgresql.conf`: the product's defaults and the user's parameters.
//!
//! Decides defaults that a user may override. Must never contain a parameter of the protocol, nor an `include`.
//! Proved by `tests`.

use std::collections::BTreeMap;

use super::refused::{Refusal, refused};
use super::{SettingError, check_key, line};

/// The user's parameters, checked.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UserParameters {
    parameters: BTreeMap<String, String>,
    preload: Vec<String>,
}

/// Why user's parameters are not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UserParametersError {
    /// It cannot be written into a file.
    #[error("a parameter cannot be rendered")]
    Setting(#[from] SettingError),
    /// It is not the user's to set.
    #[error("a parameter is refused")]
    Refused(#[from] Refusal),
    /// The name of a shared library is `[A-Za-z0-9_./$-]+`, without `..`.
    #[error("{0:?} is not the name of a shared library")]
    Library(String),
}

/// Defaults that users may override: sound for replication and for small machines.
const DEFAULTS: &[(&str, &str)] = &[
    ("checkpoint_completion_target", "0.9"),
    ("dynamic_shared_memory_type", "posix"),
    ("log_checkpoints", "on"),
    ("log_lock_waits", "on"),
    ("max_replication_slots", "20"),
    ("max_wal_senders", "20"),
    ("max_worker_processes", "16"),
    ("wal_compression", "on"),
    // P22: a rewind needs the target's WAL back to the last common checkpoint.
    ("wal_keep_size", "512MB"),
];

impl UserParameters {
    /// Checks keys, values, owners and library names.
    pub fn new(
        parameters: impl IntoIterator<Item = (String, String)>,
        preload: impl IntoIterator<Item = String>,
    ) -> Result<Self, UserParametersError> {
        let mut checked = BTreeMap::new();
        for (key, value) in parameters {
            let key = key.to_ascii_lowercase();
            check_key(&key)?;
            if let Some(refusal) = refused(&key, &value) {
                return Err(refusal.into());
            }
            line(&mut String::new(), &key, &value)?;
            checked.insert(key, value);
        }
        let preload: Vec<String> = preload.into_iter().collect();
        for library in &preload {
            let allowed = |b: u8| b.is_ascii_alphanumeric() || b"_./$-".contains(&b);
            if library.is_empty() || library.contains("..") || !library.bytes().all(allowed) {
                return Err(UserParametersError::Library(library.clone()));
            }
        }
        Ok(Self { parameters: checked, preload })
    }

    /// The user's value of a parameter.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.parameters.get(name).map(String::as_str)
    }

    /// All parameters as they will be read: defaults overridden by the user's.
    pub fn effective(&self) -> BTreeMap<String, String> {
        let mut all: BTreeMap<String, String> =
            DEFAULTS.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        all.extend(self.parameters.clone());
        if !self.preload.is_empty() {
            all.insert("shared_preload_libraries".to_owned(), self.preload.join(","));
        }
        all
    }

    /// The file.
    pub fn render(&self) -> Result<String, SettingError> {
        let mut out =
            String::from("# Rendered by the operator from the cluster's resource; edits are lost.\n");
        for (key, value) in self.effective() {
            line(&mut out, &key, &value)?;
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(key: &str, value: &str) -> Result<UserParameters, UserParametersError> {
        UserParameters::new([(key.to_owned(), value.to_owned())], [])
    }

    #[test]
    fn users_override_defaults_and_nothing_else() {
        let file = one("wal_keep_size", "1GB").unwrap().render().unwrap();
        assert!(file.contains("wal_keep_size = '1GB'") && !file.contains("512MB"));
        assert!(matches!(one("fsync", "off"), Err(UserParametersError::Refused(_))));
        assert!(matches!(one("work_mem", "1\nfsync=off"), Err(UserParametersError::Setting(_))));
        let libraries = |name: &str| UserParameters::new([], [name.to_owned()]);
        assert!(libraries("a, b").is_err() && libraries("../x").is_err());
        let file = libraries("pg_stat_statements").unwrap().render().unwrap();
        assert!(file.contains("shared_preload_libraries = 'pg_stat_statements'"));
    }

    #[test]
    fn no_default_of_ours_is_refused_or_too_low() {
        for (key, value) in DEFAULTS {
            assert_eq!(refused(key, value), None);
        }
    }
}
