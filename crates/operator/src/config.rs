//! What the operator is told at its start.

use std::{collections::BTreeMap, net::SocketAddr, str::FromStr};

use clap::{Args, Parser, Subcommand};

/// Turns PostgresClusters into Kubernetes objects.
#[derive(Debug, Parser)]
#[command(name = "matriarch-operator", version)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Runs the controller until it is told to stop or no longer leads.
    Run(RunArgs),
}

/// Flags of `run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// A namespace to look after; repeat for several, leave out for all.
    #[arg(long = "watch-namespace", env = "MATRIARCH_WATCH_NAMESPACES", value_delimiter = ',')]
    pub watch_namespaces: Vec<String>,
    /// Image that holds `/usr/local/bin/matriarch-agent`.
    #[arg(long, env = "MATRIARCH_AGENT_IMAGE")]
    pub agent_image: String,
    /// Image of PostgreSQL for a major version, `17=registry/postgres:17.6`; repeat for several.
    #[arg(long = "default-image", env = "MATRIARCH_DEFAULT_IMAGES", value_delimiter = ',', required = true)]
    pub default_images: Vec<DefaultImage>,
    /// Major version of clusters that name none; the highest with an image when left out.
    #[arg(long, env = "MATRIARCH_DEFAULT_MAJOR")]
    pub default_major: Option<i32>,
    /// Namespace of the leader election's Lease; the operator's own when left out.
    #[arg(long, env = "MATRIARCH_LEADER_ELECTION_NAMESPACE")]
    pub leader_election_namespace: Option<String>,
    /// Name of this replica in the leader election and in Events.
    #[arg(long, env = "POD_NAME", default_value = "matriarch-operator")]
    pub identity: String,
    /// Address of `/healthz`, `/readyz` and `/metrics`.
    #[arg(long, env = "MATRIARCH_HTTP", default_value = "0.0.0.0:8080")]
    pub http: SocketAddr,
    /// Clusters that are worked on at the same time.
    #[arg(long, env = "MATRIARCH_CONCURRENCY", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub concurrency: u16,
}

/// `17=registry/postgres:17.6`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DefaultImage {
    /// Major version.
    pub major: i32,
    /// Image reference.
    pub image: String,
}

/// A text that is not `17=image`.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not of the form 17=registry/postgres:17.6")]
pub struct DefaultImageError(String);

impl FromStr for DefaultImage {
    type Err = DefaultImageError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || DefaultImageError(text.to_owned());
        let (major, image) = text.split_once('=').ok_or_else(error)?;
        let major = major.trim().parse().map_err(|_| error())?;
        let image = image.trim().to_owned();
        if image.is_empty() { Err(error()) } else { Ok(Self { major, image }) }
    }
}

/// Images for clusters that name none (K24).
#[derive(Clone, Debug)]
pub struct Defaults {
    /// Image of PostgreSQL by major version.
    pub images: BTreeMap<i32, String>,
    /// Major version of clusters that name none.
    pub major: i32,
    /// Image of the agent.
    pub agent_image: String,
}

/// The flags contradict each other.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// No image at all.
    #[error("--default-image must be given at least once")]
    NoImages,
    /// The default major has no image.
    #[error("--default-major {major} has no --default-image; there are {known}")]
    NoImage {
        /// The major version asked for.
        major: i32,
        /// Those that have one.
        known: String,
    },
}

impl Defaults {
    /// Resolves the flags.
    pub fn new(
        images: &[DefaultImage],
        major: Option<i32>,
        agent_image: String,
    ) -> Result<Self, ConfigError> {
        let images: BTreeMap<i32, String> =
            images.iter().map(|default| (default.major, default.image.clone())).collect();
        let newest = *images.keys().next_back().ok_or(ConfigError::NoImages)?;
        let major = major.unwrap_or(newest);
        if !images.contains_key(&major) {
            let known = images.keys().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            return Err(ConfigError::NoImage { major, known });
        }
        Ok(Self { images, major, agent_image })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_flags_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_newest_major_is_the_default() {
        let images: Vec<DefaultImage> = ["15=a", "17=b"].iter().map(|text| text.parse().unwrap()).collect();
        assert_eq!(Defaults::new(&images, None, "agent".into()).unwrap().major, 17);
        assert_eq!(Defaults::new(&images, Some(15), "agent".into()).unwrap().major, 15);
        let error = Defaults::new(&images, Some(16), "agent".into()).unwrap_err();
        assert!(error.to_string().contains("15, 17"), "{error}");
        assert!("17".parse::<DefaultImage>().is_err() && "x=y".parse::<DefaultImage>().is_err());
    }
}
