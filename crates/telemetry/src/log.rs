//! Structured logs on standard error.
//!
//! What is logged is filtered by `MATRIARCH_LOG`, then `RUST_LOG` (syntax of
//! [`tracing_subscriber::EnvFilter`]), then the caller's default. A filter that does not parse is told on
//! standard error and replaced by the default: a typo in an environment variable must not stop a database.

use std::io::IsTerminal;
use tracing_subscriber::{EnvFilter, util::SubscriberInitExt};

/// Variables that may hold the filter, the first set one wins.
pub const FILTER_VARIABLES: [&str; 2] = ["MATRIARCH_LOG", "RUST_LOG"];

/// The filter when no variable is set: state changes of ours, only warnings of libraries.
pub const DEFAULT_FILTER: &str = "info,kube=warn,hyper=warn,rustls=warn,tower=warn";

/// A subscriber was already installed in this process.
#[derive(Debug)]
pub struct AlreadyInstalled;

impl std::fmt::Display for AlreadyInstalled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a log subscriber is already installed")
    }
}

impl std::error::Error for AlreadyInstalled {}

/// Installs the process's log subscriber: JSON lines when standard error is not a terminal, otherwise
/// compact ones. Call it once, first thing in `main`.
pub fn init() -> Result<(), AlreadyInstalled> {
    init_with(DEFAULT_FILTER, !std::io::stderr().is_terminal())
}

/// As [`init`], with the filter used when no variable is set and the form chosen by the caller.
pub fn init_with(default_filter: &str, json: bool) -> Result<(), AlreadyInstalled> {
    let builder =
        tracing_subscriber::fmt().with_writer(std::io::stderr).with_env_filter(filter(default_filter));
    let installed = if json {
        builder.json().flatten_event(true).with_current_span(true).with_span_list(false).finish().try_init()
    } else {
        builder.compact().finish().try_init()
    };
    installed.map_err(|_| AlreadyInstalled)
}

fn filter(default_filter: &str) -> EnvFilter {
    for variable in FILTER_VARIABLES {
        let Ok(text) = std::env::var(variable) else { continue };
        if text.trim().is_empty() {
            continue;
        }
        match EnvFilter::try_new(&text) {
            Ok(filter) => return filter,
            Err(error) => {
                let error = crate::report(&error);
                eprintln!("{variable}={text:?} is not a log filter ({error}); using {default_filter:?}");
            }
        }
    }
    EnvFilter::new(default_filter)
}
