//! PostgreSQL's configuration files, rendered from types.
//!
//! Decides what every member's configuration says and who may say it: the user's parameters go to `postgresql.conf`,
//! the protocol's to `postgresql.auto.conf`, which is read last and wins (§2). Must never let a value end its line or
//! a user's parameter touch what the protocol rests on. Proved by the tests below and by `tests/servers/settings.rs`, which
//! lets real servers read the files.

mod hba;
mod names;
mod protocol;
mod refused;
mod user;

use std::fmt::Write;

use crate::durable::{self, DurableError};
use crate::layout::Layout;

pub use hba::{Access, Hba, HbaLine, HbaLineError, MEMBER_GROUP, MEMBER_MAP, OS_USER, SUPERUSER};
pub use names::{NOBODY, UnknownNames, render_names};
pub use protocol::{Archive, Protocol, ServerTls, WalLevel, floors};
pub use refused::{MINIMUMS, REFUSED, REFUSED_PREFIXES, Refusal, STANDBY_FLOORS, refused};
pub use user::{UserParameters, UserParametersError};

/// A key or value that cannot stand in a configuration file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingError {
    /// Parameter names are `[a-z0-9_.]+`.
    #[error("{0:?} is not the name of a parameter: only a-z, 0-9, _ and . may occur")]
    Key(String),
    /// A line break or another control character.
    #[error("the value of {0} contains a line break or another control character")]
    Value(String),
}

/// One line `key = 'value'`.
pub(crate) fn line(out: &mut String, key: &str, value: &str) -> Result<(), SettingError> {
    check_key(key)?;
    if value.chars().any(char::is_control) {
        return Err(SettingError::Value(key.to_owned()));
    }
    let value = value.replace('\\', "\\\\").replace('\'', "''");
    // Writing to a String cannot fail.
    let _ = writeln!(out, "{key} = '{value}'");
    Ok(())
}

pub(crate) fn check_key(key: &str) -> Result<(), SettingError> {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'.';
    if key.is_empty() || key.len() > 128 || !key.bytes().all(allowed) {
        return Err(SettingError::Key(key.to_owned()));
    }
    Ok(())
}

/// Why configuration could not be put on disk.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// A key or a value cannot be rendered.
    #[error("cannot render the settings")]
    Render(#[from] SettingError),
    /// What is in force is not known, so nothing can be rendered from it.
    #[error("cannot render the standby names")]
    Names(#[from] UnknownNames),
    /// A file cannot be written durably.
    #[error("cannot write the settings")]
    Write(#[from] DurableError),
}

/// Everything a server reads at start and at reload.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// The user's part.
    pub user: UserParameters,
    /// The protocol's part.
    pub protocol: Protocol,
    /// Who may connect.
    pub hba: Hba,
}

impl Settings {
    /// Writes all four files into the data directory, each atomically, and only where they differ. True when any
    /// changed. Called before every start (a rewind or a clone brings the upstream's files) and before a reload.
    pub async fn write(&self, layout: &Layout) -> Result<bool, SettingsError> {
        let files = [
            ("postgresql.conf", self.user.render()?),
            ("postgresql.auto.conf", self.protocol.render()?),
            ("pg_ident.conf", self.hba.render_ident()),
            ("pg_hba.conf", self.hba.render()),
        ];
        write_files(layout, files.map(|(name, content)| (name, content)).to_vec()).await
    }

    /// Writes only the protocol's part. True when it differed: somebody's `ALTER SYSTEM` (P15), or our own change.
    pub async fn write_protocol(&self, layout: &Layout) -> Result<bool, SettingsError> {
        write_files(layout, vec![("postgresql.auto.conf", self.protocol.render()?)]).await
    }

    /// Writes only who may connect.
    pub async fn write_hba(&self, layout: &Layout) -> Result<bool, SettingsError> {
        write_files(
            layout,
            vec![("pg_ident.conf", self.hba.render_ident()), ("pg_hba.conf", self.hba.render())],
        )
        .await
    }
}

async fn write_files(layout: &Layout, files: Vec<(&'static str, String)>) -> Result<bool, SettingsError> {
    let data = layout.data();
    let changed = durable::ordered(&data.clone(), move || {
        let mut changed = false;
        for (name, content) in files {
            changed |= durable::write_if_changed(&data.join(name), content.as_bytes(), 0o600)?;
        }
        Ok(changed)
    })
    .await?;
    Ok(changed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_value_cannot_smuggle_a_line() {
        let mut out = String::new();
        line(&mut out, "a.b_1", r"it's \ fine").unwrap();
        assert_eq!(out, "a.b_1 = 'it''s \\\\ fine'\n");
        assert_eq!(line(&mut out, "a", "x\ny"), Err(SettingError::Value("a".into())));
        for key in ["", "A", "a b", "a\n", "a'", "include 'x'"] {
            assert!(matches!(line(&mut out, key, "x"), Err(SettingError::Key(_))), "{key:?}");
        }
    }

    proptest! {
        #[test]
        fn every_rendered_value_is_one_quoted_line(value in ".*") {
            let mut out = String::new();
            if line(&mut out, "k", &value).is_ok() {
                prop_assert_eq!(out.lines().count(), 1);
                let inner = out.strip_prefix("k = '").and_then(|t| t.strip_suffix("'\n")).unwrap();
                prop_assert!(!inner.replace("''", "").contains('\''));
            }
        }
    }
}
