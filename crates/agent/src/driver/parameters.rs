//! The user's part of PostgreSQL's configuration: which version of it is used.
//!
//! Decides between the newest wish and the last one that PostgreSQL took. Must never let a wish that it refuses reach a
//! running server, nor keep a server from starting: the last good one stays, and the refusal is told (api.md, "Bad
//! input"). Undoing the edit heals.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use api::settings::PostgresSettings;
use postgres::parameters::validate;
use postgres::settings::{HbaLine, UserParameters};
use postgres::{Binaries, Layout};

use super::files::Known;

/// `postgres -C` reads files and ends.
const VALIDATE: Duration = Duration::from_secs(10);

/// What became of the user's wishes.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct State {
    /// The last wishes that PostgreSQL took.
    pub(crate) accepted: Option<PostgresSettings>,
    /// The last ones with which it was seen running, nothing waiting for a restart.
    pub(crate) proved: Option<PostgresSettings>,
    /// The last ones that it did not take, and its words.
    pub(crate) refused: Option<(PostgresSettings, Vec<String>)>,
    /// The server's own version, such as `17.6`.
    pub(crate) version: Option<String>,
    /// What waits for a restart.
    pub(crate) pending_restart: BTreeSet<String>,
    /// What the running server was last given: its run, the wishes, the certificates.
    pub(crate) given: Option<(u64, PostgresSettings, u64)>,
}

/// The state, kept beside PGDATA as far as it must outlive the process.
#[derive(Debug)]
pub(crate) struct Parameters {
    state: Mutex<State>,
    kept: PathBuf,
}

impl Parameters {
    /// Begins with the kept wishes.
    pub(crate) fn load(kept: PathBuf) -> Self {
        let read =
            |path: &Path| std::fs::read(path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let (accepted, proved) = (read(&kept), read(&proved_beside(&kept)));
        Self { state: Mutex::new(State { accepted, proved, ..State::default() }), kept }
    }

    /// A copy of what is known.
    pub(crate) fn get(&self) -> State {
        self.lock().clone()
    }

    /// Writes what was learned.
    pub(crate) fn set(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
    }

    /// What the others, and people, should know of it.
    pub(crate) fn tell(&self, wanted: &PostgresSettings, known: &Known, said: &mut ha::Announcement) {
        let state = self.get();
        // A server that was not reloaded yet still shows the former certificate.
        let reloaded =
            state.given.as_ref().is_some_and(|(_, _, generation)| *generation == known.tls_generation);
        said.certificates = reloaded.then(|| known.acknowledgement.clone()).flatten();
        said.pending_restart = state.given.map(|_| !state.pending_restart.is_empty());
        said.version = state.version;
        said.parameters_refused =
            state.refused.filter(|(refused, _)| refused == wanted).map(|(_, problems)| problems.join("; "));
    }

    /// The wishes to render: the accepted ones, or these when none was ever accepted.
    pub(crate) fn usable(&self, wanted: &PostgresSettings) -> PostgresSettings {
        self.lock().accepted.clone().unwrap_or_else(|| wanted.clone())
    }

    /// Asks PostgreSQL's own programs about new wishes and takes them over when they are fine. Needs a data directory,
    /// no running server. False when they are refused.
    pub(crate) async fn consider(
        &self,
        wanted: &PostgresSettings,
        binaries: &Binaries,
        layout: &Layout,
    ) -> anyhow::Result<bool> {
        let state = self.get();
        if state.accepted.as_ref() == Some(wanted) {
            self.set(|state| state.refused = None);
            return Ok(true);
        }
        if state.refused.as_ref().is_some_and(|(refused, _)| refused == wanted) {
            return Ok(false);
        }
        let problems = match parse(wanted) {
            Ok(user) => {
                let said = validate(binaries, layout, &user, VALIDATE).await?;
                said.iter().map(|line| words(line)).collect()
            }
            Err(error) => vec![format!("{error:#}")],
        };
        if problems.is_empty() {
            self.accept(wanted).await?;
            return Ok(true);
        }
        self.refuse(wanted, problems);
        Ok(false)
    }

    /// Takes wishes over, durably.
    pub(crate) async fn accept(&self, wanted: &PostgresSettings) -> anyhow::Result<()> {
        let (path, bytes) = (self.kept.clone(), serde_json::to_vec(wanted)?);
        tokio::task::spawn_blocking(move || postgres::durable::write_if_changed(&path, &bytes, 0o600))
            .await??;
        self.set(|state| {
            state.accepted = Some(wanted.clone());
            state.refused = None;
        });
        Ok(())
    }

    /// Notes durably that PostgreSQL runs with the accepted wishes.
    pub(crate) async fn prove(&self) -> anyhow::Result<()> {
        let state = self.get();
        if state.accepted.is_none() || state.accepted == state.proved {
            return Ok(());
        }
        let (path, bytes) = (proved_beside(&self.kept), serde_json::to_vec(&state.accepted)?);
        tokio::task::spawn_blocking(move || postgres::durable::write_if_changed(&path, &bytes, 0o600))
            .await??;
        self.set(|known| known.proved = state.accepted);
        Ok(())
    }

    /// PostgreSQL did not start: when that was the first start with new wishes, the proved ones come back.
    pub(crate) async fn failed_to_start(&self, why: &str) -> anyhow::Result<()> {
        let state = self.get();
        let (Some(accepted), Some(proved)) = (state.accepted, state.proved) else { return Ok(()) };
        if accepted != proved {
            self.accept(&proved).await?;
            self.refuse(&accepted, vec![format!("PostgreSQL does not start with them: {why}")]);
        }
        Ok(())
    }

    /// Notes that PostgreSQL does not take these wishes.
    pub(crate) fn refuse(&self, wanted: &PostgresSettings, problems: Vec<String>) {
        tracing::warn!(
            problems = problems.join("; "),
            "the new parameters are refused, the last good ones stay"
        );
        self.set(|state| state.refused = Some((wanted.clone(), problems)));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The words of a line of PostgreSQL's log, without when and by whom they were said.
fn words(line: &str) -> String {
    ["LOG:  ", "FATAL:  ", "ERROR:  "]
        .iter()
        .find_map(|level| line.split_once(level))
        .map_or(line, |(_, words)| words)
        .to_owned()
}

fn proved_beside(kept: &Path) -> PathBuf {
    kept.with_extension("proved.json")
}

/// The field that a refused line stands in, as the condition names it.
const HBA_FIELD: &str = "spec.postgres.hba";

/// The checks that need no PostgreSQL.
pub(crate) fn parse(wanted: &PostgresSettings) -> anyhow::Result<UserParameters> {
    for (index, line) in wanted.hba.iter().enumerate() {
        HbaLine::new(line).map_err(|error| anyhow::anyhow!("{HBA_FIELD}[{index}]: {error}"))?;
    }
    Ok(UserParameters::new(wanted.parameters.clone(), wanted.shared_preload_libraries.iter().cloned())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wishes(work_mem: &str) -> PostgresSettings {
        let parameters = [("work_mem".to_owned(), work_mem.to_owned())].into();
        PostgresSettings { parameters, ..PostgresSettings::default() }
    }

    #[tokio::test]
    async fn a_server_that_does_not_start_gets_the_proved_parameters_back() {
        let directory = tempfile::tempdir().unwrap();
        let kept = directory.path().join("parameters.json");
        let parameters = Parameters::load(kept.clone());
        parameters.accept(&wishes("1MB")).await.unwrap();
        parameters.prove().await.unwrap();
        parameters.accept(&wishes("2MB")).await.unwrap();
        parameters.failed_to_start("exit status 1").await.unwrap();
        assert_eq!(parameters.usable(&wishes("2MB")), wishes("1MB"));
        assert_eq!(
            Parameters::load(kept).usable(&wishes("2MB")),
            wishes("1MB"),
            "and keeps them over a restart"
        );
        let mut said = None;
        parameters.set(|state| said = state.refused.clone());
        assert_eq!(said.unwrap().0, wishes("2MB"));
    }

    #[test]
    fn a_refused_line_is_told_with_its_field() {
        let hba = vec!["hostssl all all all scram-sha-256".to_owned(), "local all all trust".to_owned()];
        let error = parse(&PostgresSettings { hba, ..wishes("1MB") }).unwrap_err();
        assert!(error.to_string().starts_with("spec.postgres.hba[1]: "), "{error}");
    }

    #[test]
    fn a_refusal_is_told_in_postgresqls_words_alone() {
        let line = r#"2026-01-01 00:00:00.000 GMT [7] LOG:  invalid value for parameter "work_mem": "x""#;
        assert_eq!(words(line), r#"invalid value for parameter "work_mem": "x""#);
        assert_eq!(words("plain"), "plain");
    }
}
