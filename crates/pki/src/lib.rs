//! A certificate authority per cluster.
//!
//! Decides what a certificate of a cluster says, when it is renewed and in which order a new authority
//! replaces an old one. It must never let a certificate of another authority, or of this one but made for
//! another purpose, speak on the peer channel (`tls::tests::a_stranger_is_refused`,
//! `tls::tests::a_client_certificate_is_no_peer`), never sign with an authority that a member does not
//! know yet (K10, `rotation::tests`), and never print a private key.
//!
//! Time is an argument everywhere: this crate reads no clock (the TLS handshake itself excepted).

mod acknowledgement;
mod authority;
mod bundle;
mod leaf;
pub mod names;
mod rotation;
mod tls;
mod validity;

pub use acknowledgement::acknowledgement;
pub use authority::{AUTHORITY_LIFETIME, Authority, AuthorityError};
pub use bundle::{Bundle, BundleError, Fingerprint};
pub use leaf::{Issued, LEAF_LIFETIME, Leaf, PEER_USAGE};
pub use rotation::{Observed, Step, next_step};
pub use tls::{
    TlsError, client_config, is_peer, keys_match, peer_client_config, peer_server_config, server_config,
};
pub use validity::{Validity, ValidityError, needs_renewal, validity};
