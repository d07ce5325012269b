//! Which certificates this member shows and takes; replaced as a whole (K10).

use std::sync::Arc;

use pki::{Bundle, BundleError, TlsError};
use rustls::client::Resumption;
use rustls::server::NoServerSessionStorage;
use rustls::{ClientConfig, ServerConfig};

/// The given certificates are of no use.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// The bundle.
    #[error("cannot read the cluster's authorities")]
    Bundle(#[source] BundleError),
    /// Certificate and key.
    #[error("cannot use the peer certificate")]
    Identity(#[source] TlsError),
}

/// Both ends' configurations, and what they were made of.
#[derive(Debug)]
pub(super) struct Trust {
    pub(super) client: Arc<ClientConfig>,
    pub(super) server: Arc<ServerConfig>,
    bundle: Bundle,
    certificate: String,
}

impl Trust {
    pub(super) fn new(bundle: &str, certificate: &str, key: &str) -> Result<Self, TrustError> {
        let bundle = Bundle::from_pem(bundle).map_err(TrustError::Bundle)?;
        let mut client = pki::peer_client_config(&bundle, certificate, key).map_err(TrustError::Identity)?;
        let mut server = pki::peer_server_config(&bundle, certificate, key).map_err(TrustError::Identity)?;
        // A resumed session is not verified again, and connections are few and long.
        client.resumption = Resumption::disabled();
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        Ok(Self {
            client: Arc::new(client),
            server: Arc::new(server),
            bundle,
            certificate: certificate.to_owned(),
        })
    }

    /// Nothing changed.
    pub(super) fn same(&self, other: &Self) -> bool {
        self.trusts_the_same(other) && self.certificate == other.certificate
    }

    /// Standing connections were verified against the same authorities.
    pub(super) fn trusts_the_same(&self, other: &Self) -> bool {
        self.bundle.fingerprint() == other.bundle.fingerprint()
    }
}
