//! PostgreSQL's own log lines, read back into fields so that the agent can merge them into its log.
//!
//! Decides `log_line_prefix`. Only fields that no user can choose stand before the message; PostgreSQL indents
//! continuation lines with a tab, so a statement cannot forge a line. Proved by `tests` and `tests/servers/settings.rs`.

/// The prefix: time (ms), process id, session line, backend type, SQLSTATE; each ended by `|`.
pub const LINE_PREFIX: &str = "pg|%n|%p|%l|%b|%e|";

/// One line of the server's stderr.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogLine<'a> {
    /// The first line of a message.
    Message {
        /// Unix time in seconds with milliseconds, as printed.
        time: &'a str,
        /// The process that logged it.
        pid: u32,
        /// Such as `client backend` or `walreceiver`.
        backend: &'a str,
        /// SQLSTATE; `00000` without an error.
        sqlstate: &'a str,
        /// `LOG`, `ERROR`, `FATAL`, `DETAIL`, `HINT`, `STATEMENT`, …
        severity: &'a str,
        /// The text.
        text: &'a str,
    },
    /// A further line of the message before it.
    Continuation(&'a str),
    /// Written by something else: a shell, a library, the postmaster before it has read its settings.
    Other(&'a str),
}

/// Reads one line without its line break.
pub fn parse(line: &str) -> LogLine<'_> {
    if let Some(rest) = line.strip_prefix('\t') {
        return LogLine::Continuation(rest);
    }
    message(line).unwrap_or(LogLine::Other(line))
}

fn message(line: &str) -> Option<LogLine<'_>> {
    let mut fields = line.strip_prefix("pg|")?.splitn(6, '|');
    let time = fields.next()?;
    let pid = fields.next()?.parse().ok()?;
    let _line_number: u64 = fields.next()?.parse().ok()?;
    let backend = fields.next()?;
    let sqlstate = fields.next()?;
    let (severity, text) = fields.next()?.split_once(":  ")?;
    Some(LogLine::Message { time, pid, backend, sqlstate, severity, text })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_back() {
        let line = "pg|1700000000.123|42|7|client backend|57P01|FATAL:  terminating connection | due: to";
        let LogLine::Message { time, pid, backend, sqlstate, severity, text } = parse(line) else {
            panic!("no message")
        };
        assert_eq!((time, pid, backend), ("1700000000.123", 42, "client backend"));
        assert_eq!((sqlstate, severity, text), ("57P01", "FATAL", "terminating connection | due: to"));
        assert_eq!(parse("\tpg|1|2|3|x|y|LOG:  forged"), LogLine::Continuation("pg|1|2|3|x|y|LOG:  forged"));
        assert_eq!(parse("sh: not found"), LogLine::Other("sh: not found"));
    }
}
