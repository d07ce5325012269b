//! The command line.

pub(crate) mod check;
mod connect;
mod read;
mod tell;
mod write;

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

/// Writes rows, keeps its own log of what was acknowledged, and judges a database by it.
#[derive(Parser)]
#[command(name = "matriarch-client", version)]
pub(crate) enum Command {
    /// Writes (and reads, with --read-host) until it is told to stop; exits 0 then.
    Write(Box<write::Write>),
    /// Reads only.
    Read(read::Read),
    /// Compares logs with the database; exits 1 when a promise is broken, 2 when that cannot be judged.
    Check(check::Check),
    /// Says what a log says.
    Summary(check::SummaryOf),
}

impl Command {
    /// Does what was asked.
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        match self {
            Self::Write(arguments) => arguments.run().await,
            Self::Read(arguments) => arguments.run().await,
            Self::Check(arguments) => arguments.run().await,
            Self::Summary(arguments) => arguments.run(),
        }
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| format!("{text:?} is not a duration such as 5ms or 2s"))?;
    match unit {
        "ms" => Ok(Duration::from_millis(number)),
        "s" => Ok(Duration::from_secs(number)),
        "m" => Ok(Duration::from_secs(number.saturating_mul(60))),
        _ => Err(format!("{text:?} is not a duration such as 5ms or 2s")),
    }
}

/// Names of tables and writers are made part of SQL and of file names, so they are plain.
fn identifier(text: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let first = text.chars().next().is_some_and(|c| c.is_ascii_lowercase());
    if first && text.len() <= 40 && text.chars().all(plain) {
        Ok(text.to_owned())
    } else {
        Err(format!("{text:?}: write at most 40 of a-z, 0-9 and _, beginning with a letter"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        <Command as clap::CommandFactory>::command().debug_assert();
    }

    #[test]
    fn what_the_end_to_end_tests_pass_is_understood() {
        let line = "matriarch-client write --id c1 --ca-file /app/ca.crt --log-dir /log --kept 5ms --fresh 25ms --host h \
                    --transfers 50ms --appends 50ms --read-host r";
        assert!(Command::try_parse_from(line.split_whitespace()).is_ok());
    }

    #[test]
    fn names_cannot_smuggle_sql() {
        assert_eq!(identifier("t_1").as_deref(), Ok("t_1"));
        for bad in ["", "1t", "t; drop", "T", "t\"", "../x"] {
            assert!(identifier(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn durations_need_a_unit() {
        assert_eq!(duration("5ms"), Ok(Duration::from_millis(5)));
        assert_eq!(duration("2s"), Ok(Duration::from_secs(2)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        assert!(duration("5").is_err());
    }
}
