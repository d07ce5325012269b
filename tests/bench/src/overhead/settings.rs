//! Whether two servers run with the same settings: what is in force, not what is written.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use postgres::{Layout, Session};

use super::ASK;

/// Where a server's files are, and whom it follows; both pairs have two members that may have changed places.
const OWN: [&str; 7] = [
    "data_directory",
    "config_file",
    "hba_file",
    "ident_file",
    "external_pid_file",
    "primary_conninfo",
    "primary_slot_name",
];

/// The settings in force, by name.
pub(super) async fn read(layout: &Layout) -> Result<BTreeMap<String, String>> {
    let session = Session::open(layout, ASK).await?;
    let sql = "SELECT name, setting FROM pg_settings WHERE context <> 'internal' AND source NOT IN ('client', 'session')";
    let rows = session.rows("read the settings", sql, &[]).await?;
    Ok(rows.iter().map(|row| (row.get(0), plain(row.get(1)))).collect())
}

/// An error that names what differs.
pub(super) fn ensure_equal(one: &BTreeMap<String, String>, other: &BTreeMap<String, String>) -> Result<()> {
    let differ: Vec<String> = one
        .iter()
        .filter(|(name, value)| !OWN.contains(&name.as_str()) && other.get(*name) != Some(value))
        .map(|(name, value)| format!("{name}: {value:?} and {:?}", other.get(name)))
        .collect();
    ensure!(
        differ.is_empty() && one.len() == other.len(),
        "the two masters' settings differ: {}",
        differ.join("; ")
    );
    Ok(())
}

/// Without which of the two members it is: names, incarnations, addresses.
fn plain(value: &str) -> String {
    let mut plain = value.replace("127.1.1.2", "127.1.1.1").replace("pg-1", "pg-0");
    let mut from = 0;
    while let Some(at) = plain.get(from..).and_then(|rest| rest.find("m_")) {
        let start = from + at + 2;
        let digits = plain.get(start..).unwrap_or_default().bytes().take_while(u8::is_ascii_hexdigit).count();
        if digits == 16 {
            plain.replace_range(start..start + digits, "…");
        }
        from = start;
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_may_have_changed_places() {
        let one = plain("ANY 1 (\"m_0123456789abcdef\")");
        assert_eq!(one, plain("ANY 1 (\"m_fedcba9876543210\")"));
        assert_ne!(one, plain("ANY 1 (\"matriarch_nobody\")"));
        assert_eq!(plain("/w/pg-1/run"), "/w/pg-0/run");
    }

    #[test]
    fn a_difference_is_named() {
        let settings = |fsync: &str| BTreeMap::from([("fsync".to_owned(), fsync.to_owned())]);
        assert!(ensure_equal(&settings("on"), &settings("on")).is_ok());
        let told = ensure_equal(&settings("on"), &settings("off")).unwrap_err().to_string();
        assert!(told.contains("fsync: \"on\" and Some(\"off\")"), "{told}");
        assert!(ensure_equal(&settings("on"), &BTreeMap::new()).is_err());
    }
}
