//! Leader election for any program, over one Lease: for Rust programs this library, for all others the sidecar.
//!
//! It decides nothing about who leads (that is [`ha::election`]) and knows nothing of PostgreSQL. It hands out a guard,
//! [`Lead`], that says whether one still leads and until when, and gives the Lease back only after every guard of the term
//! was dropped. It must never call anybody leader beyond its deadline (`tests/defects.rs`, by the names of the defects of
//! the sidecar whose place this one takes).
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use elector::{Elector, Settings};
//! use kubernetes::client::{Clients, Origin};
//!
//! # async fn make_reports(_epoch: u64) {}
//! #[tokio::main]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let clients = Clients::build(Origin::Infer, Duration::from_secs(2)).await?;
//!     let settings = Settings::new("nightly-report", &clients.namespace, &std::env::var("POD_NAME")?);
//!     let elector = Elector::start(&clients, settings)?;
//!     loop {
//!         let mut lead = elector.lead().await;
//!         println!("leading in epoch {}", lead.epoch());
//!         tokio::select! {
//!             () = make_reports(lead.epoch()) => break, // asks lead.holds() right before each act
//!             () = lead.lost() => println!("another one may lead now"),
//!         }
//!     }
//!     elector.leave().await;
//!     Ok(())
//! }
//! ```

mod elector;
mod lead;
mod settings;
pub mod sidecar;

pub use elector::{Elector, StepDownError};
pub use kubernetes::leader_election::{Leadership, Problem, View};
pub use lead::Lead;
pub use settings::{InvalidSettings, Settings};
