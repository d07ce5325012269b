//! How to reach the database.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::Args;

use super::duration;
use crate::session::target::Target;
use crate::session::tls::Roots;
use crate::session::{Bounds, Door};

/// How to reach the database.
#[derive(Args)]
pub(crate) struct Connect {
    /// The database, `postgresql://user[:password]@host[:port]/database?…`. Everybody on this machine can read it in the
    /// list of processes: leave the password to PGPASSWORD, or all of it to --uri-env.
    #[arg(long)]
    url: Option<String>,
    /// The environment variable that holds the URI, where --url does not.
    #[arg(long, default_value = "URI")]
    uri_env: String,
    /// The certificate authority, PEM; else the URI's sslrootcert.
    #[arg(long)]
    ca_file: Option<PathBuf>,
    /// Another host than the URI's, under its own name; `host:port` for another port.
    #[arg(long)]
    host: Option<String>,
    /// Bound for connecting, authentication included.
    #[arg(long = "connect-timeout", default_value = "1s", value_parser = duration)]
    patience: Duration,
    /// Bound for one statement.
    #[arg(long, default_value = "10s", value_parser = duration)]
    statement_timeout: Duration,
}

impl Connect {
    /// Makes sessions there.
    pub(super) fn door(&self) -> anyhow::Result<Door> {
        let uri = match &self.url {
            Some(url) => url.clone(),
            None => std::env::var(&self.uri_env)
                .with_context(|| format!("give --url, or environment variable {}", self.uri_env))?,
        };
        let mut target = Target::parse(&uri)?.or_password(std::env::var("PGPASSWORD").ok());
        if let Some(host) = &self.host {
            target = target.through(host);
        }
        let authority = self.ca_file.as_deref().or(target.authority.as_deref().filter(|_| target.verify));
        let tls = authority.map(Roots::of).transpose()?;
        Door::new(target, tls, Bounds { connect: self.patience, statement: self.statement_timeout })
    }
}
