//! The bot in every PostgreSQL pod.
//!
//! One binary in three modes: `install` copies it into the pod, `supervise` is PID 1, `run` is the agent proper, which
//! takes part in the election and drives PostgreSQL. The supervisor is all that a broken agent cannot break:
//! it holds the volume's lock, answers the kubelet, and kills every process of PostgreSQL when the agent falls silent.

mod api_server;
pub mod cli;
pub mod clock;
pub mod config;
pub mod control;
pub mod driver;
pub mod http;
pub mod install;
pub mod peers;
pub mod run;
pub mod supervised;
pub mod supervisor;
