//! The postmaster's children as the kernel lists them.
//!
//! `pg_stat_activity` does not show a process before it has introduced itself: a walreceiver that was just forked, a
//! client that is still authenticating. The kernel does. Proved by `tests`.

use std::io;

/// One child process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Child {
    /// Its process id.
    pub(crate) pid: i32,
    /// Its title, without `postgres: ` and, when it has one, the cluster's name; none while it still carries the
    /// postmaster's own command line: just forked, or a client that has not said who it is (up to 16).
    pub(crate) title: Option<String>,
}

impl Child {
    /// A walreceiver by its title. A client's title begins with a role, which may be called so too: the caller leaves
    /// out those that PostgreSQL lists as something else.
    pub(crate) fn looks_like_walreceiver(&self) -> bool {
        self.title.as_deref().is_some_and(|t| t == "walreceiver" || t.starts_with("walreceiver "))
    }

    /// Perhaps a client that PostgreSQL has not admitted yet: it goes by the hba lines that the postmaster had when it
    /// was forked.
    pub(crate) fn may_be_authenticating(&self) -> bool {
        let midway = |t: &str| t.ends_with(" authentication") || t.ends_with(" initializing");
        self.title.as_deref().is_none_or(midway)
    }
}

/// The children of `parent`. Processes that vanish meanwhile are left out.
pub(crate) fn children(parent: i32, cluster_name: &str) -> io::Result<Vec<Child>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let entry = entry?;
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse::<i32>().ok()) else { continue };
        let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else { continue };
        if parent_of(&stat) != Some(parent) {
            continue;
        }
        let Ok(command) = std::fs::read(entry.path().join("cmdline")) else { continue };
        found.push(Child { pid, title: title(&command, cluster_name) });
    }
    Ok(found)
}

/// Every process below `root`, nearest first, without `root` itself. Those that vanish meanwhile are left out.
pub(crate) fn descendants(root: i32) -> io::Result<Vec<i32>> {
    let mut found: Vec<i32> = Vec::new();
    let mut next = vec![root];
    while let Some(parent) = next.pop() {
        for child in children(parent, "")? {
            // A process id is a child of one process only; the check bounds the walk all the same.
            if child.pid != root && !found.contains(&child.pid) {
                found.push(child.pid);
                next.push(child.pid);
            }
        }
    }
    Ok(found)
}

/// The fourth field of `/proc/PID/stat`, counted behind the command's closing parenthesis.
fn parent_of(stat: &str) -> Option<i32> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

fn title(command: &[u8], cluster_name: &str) -> Option<String> {
    let text = String::from_utf8_lossy(command);
    let text = text.trim_end_matches(['\0', ' ']).strip_prefix("postgres: ")?;
    let prefix = format!("{cluster_name}: ");
    let text = if cluster_name.is_empty() { text } else { text.strip_prefix(&prefix).unwrap_or(text) };
    Some(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn titles_lose_their_prefixes() {
        let child = |text: &str| Child { pid: 1, title: title(text.as_bytes(), "pg") };
        assert!(child("postgres: pg: walreceiver streaming 0/30000D8\0\0").looks_like_walreceiver());
        assert!(child("postgres: pg: app app 10.0.0.1(4) authentication").may_be_authenticating());
        assert!(!child("postgres: pg: startup recovering 000000010000000000000003").may_be_authenticating());
        assert!(child("/usr/lib/postgresql/15/bin/postgres\0-D\0/v/pgdata\0").may_be_authenticating());
        assert_eq!(parent_of("12 (a b) c) S 7 12 12 0"), Some(7));
    }

    #[test]
    fn own_children_are_found() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let own = i32::try_from(std::process::id()).unwrap();
        let found = children(own, "").unwrap();
        assert!(found.iter().any(|c| u32::try_from(c.pid).unwrap() == child.id()), "{found:?}");
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
