//! The one rule for users' lines of `pg_hba.conf`.
//!
//! Decides whether a text is one line of a kind that users may write: admission, the operator and the agent's rendering
//! take it from here. Must never let a line become two, read another file, or open the Unix socket, which is the agent's.
//! Whether PostgreSQL likes the rest, `pg_hba_file_rules` says. Proved by `tests`.

/// What a line may begin with ("The `pg_hba.conf` File" in PostgreSQL's documentation), but for `local`.
pub const KINDS: [&str; 5] = ["host", "hostssl", "hostnossl", "hostgssenc", "hostnogssenc"];

/// Why a line is refused, as one says it to whoever wrote it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// A line break, NUL or another control character but the tab.
    Control,
    /// A backslash at the end continues on the next line.
    Continued,
    /// `@name` reads another file of the server's.
    File,
    /// A line for the Unix socket.
    Local,
    /// Begins with something else; includes `include` and comments.
    Kind,
    /// Type, database, user, address and method are needed.
    TooShort,
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Control => "has a line break or another control character",
            Self::Continued => "must not end with a backslash, which would join it with the next line",
            Self::File => "must not read another file (@file); write the names themselves",
            Self::Local => {
                "must not be a local line: the Unix socket is the agent's; begin with hostssl or host"
            }
            Self::Kind => "must begin with host, hostssl, hostnossl, hostgssenc or hostnogssenc",
            Self::TooShort => {
                "write: hostssl database user address method, for example hostssl all all 10.0.0.0/8 scram-sha-256"
            }
        })
    }
}

/// Checks one line.
///
/// # Errors
/// What a user must change.
pub fn check(line: &str) -> Result<(), Refused> {
    if line.chars().any(|c| c.is_control() && c != '\t') {
        return Err(Refused::Control);
    }
    if line.trim_end_matches([' ', '\t']).ends_with('\\') {
        return Err(Refused::Continued);
    }
    if line.split([' ', '\t', ',']).any(|word| word.trim_start_matches('"').starts_with('@')) {
        return Err(Refused::File);
    }
    let mut words = line.split_whitespace();
    match words.next().unwrap_or_default() {
        "local" => Err(Refused::Local),
        kind if !KINDS.contains(&kind) => Err(Refused::Kind),
        _ if words.count() < 4 => Err(Refused::TooShort),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_stays_one_line_of_a_kind_for_users() {
        assert_eq!(check("hostssl all all 10.0.0.0/8 scram-sha-256"), Ok(()));
        assert_eq!(check("host\tall all all reject \t"), Ok(()));
        for (bad, why) in [
            ("host all all 0/0 trust\nlocal all all trust", Refused::Control),
            ("host all all all trust \\", Refused::Continued),
            ("host all all all trust \\ \t", Refused::Continued),
            ("include other.conf", Refused::Kind),
            ("local all all trust", Refused::Local),
            ("", Refused::Kind),
            ("# x", Refused::Kind),
            ("host all @users all trust", Refused::File),
            ("host all postgres,\"@users\" all trust", Refused::File),
            ("host all all trust", Refused::TooShort),
        ] {
            assert_eq!(check(bad), Err(why), "{bad:?}");
        }
    }
}
