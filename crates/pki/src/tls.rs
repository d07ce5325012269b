//! rustls configurations that trust one cluster's bundle and nothing else.
//!
//! The peer channel asks both ends for a certificate of the cluster with [`PEER_USAGE`]: a server
//! certificate, or a client certificate of a database role, of the very same authority does not open it.

use crate::{bundle::Bundle, leaf::PEER_USAGE};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error as RustlsError,
    RootCertStore, ServerConfig, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::CryptoProvider,
    server::{
        WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::CertifiedKey,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject};
use std::sync::Arc;
use thiserror::Error;

/// A TLS configuration could not be made.
#[derive(Debug, Error)]
pub enum TlsError {
    /// The certificate cannot be read.
    #[error("cannot read the certificate")]
    Certificate(#[source] rustls_pki_types::pem::Error),
    /// The certificate's PEM holds no certificate.
    #[error("no certificate in the PEM")]
    NoCertificate,
    /// The private key cannot be read.
    #[error("cannot read the private key")]
    Key(#[source] rustls_pki_types::pem::Error),
    /// Certificate and key do not belong together: one of them was replaced alone.
    #[error("certificate and private key do not belong together")]
    Mismatch(#[source] RustlsError),
    /// An authority in the bundle is unusable.
    #[error("cannot trust an authority of the bundle")]
    Trust(#[source] RustlsError),
    /// The verifier cannot be built.
    #[error("cannot build the verifier")]
    Verifier(#[source] rustls::server::VerifierBuilderError),
    /// The versions or the identity are refused.
    #[error("cannot build the configuration")]
    Build(#[source] RustlsError),
}

/// Checks that certificate and private key belong together (K10: before any reload).
pub fn keys_match(certificate_pem: &str, key_pem: &str) -> Result<(), TlsError> {
    let (chain, key) = identity(certificate_pem, key_pem)?;
    CertifiedKey::from_der(chain, key, &provider()).map(drop).map_err(TlsError::Mismatch)
}

/// The accepting end of the peer channel: TLS 1.3, a peer certificate of this cluster required.
pub fn peer_server_config(
    bundle: &Bundle,
    certificate_pem: &str,
    key_pem: &str,
) -> Result<ServerConfig, TlsError> {
    keys_match(certificate_pem, key_pem)?;
    let (chain, key) = identity(certificate_pem, key_pem)?;
    let webpki = WebPkiClientVerifier::builder_with_provider(roots(bundle)?, provider())
        .build()
        .map_err(TlsError::Verifier)?;
    ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(TlsError::Build)?
        .with_client_cert_verifier(Arc::new(PeerClientVerifier(webpki)))
        .with_single_cert(chain, key)
        .map_err(TlsError::Build)
}

/// The connecting end of the peer channel. The server name given to the connection is the member's host
/// name ([`crate::names::pod_name`]), whatever address is dialled (K5).
pub fn peer_client_config(
    bundle: &Bundle,
    certificate_pem: &str,
    key_pem: &str,
) -> Result<ClientConfig, TlsError> {
    keys_match(certificate_pem, key_pem)?;
    let (chain, key) = identity(certificate_pem, key_pem)?;
    let webpki = WebPkiServerVerifier::builder_with_provider(roots(bundle)?, provider())
        .build()
        .map_err(TlsError::Verifier)?;
    ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(TlsError::Build)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(PeerServerVerifier(webpki)))
        .with_client_auth_cert(chain, key)
        .map_err(TlsError::Build)
}

/// A server for ordinary clients: no client certificate asked for.
pub fn server_config(certificate_pem: &str, key_pem: &str) -> Result<ServerConfig, TlsError> {
    keys_match(certificate_pem, key_pem)?;
    let (chain, key) = identity(certificate_pem, key_pem)?;
    ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Build)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(TlsError::Build)
}

/// A client of this cluster's servers (PostgreSQL among them), with a certificate of its own when given as
/// `(certificate_pem, key_pem)`.
pub fn client_config(bundle: &Bundle, own: Option<(&str, &str)>) -> Result<ClientConfig, TlsError> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Build)?
        .with_root_certificates(roots(bundle)?);
    let Some((certificate_pem, key_pem)) = own else {
        return Ok(builder.with_no_client_auth());
    };
    keys_match(certificate_pem, key_pem)?;
    let (chain, key) = identity(certificate_pem, key_pem)?;
    builder.with_client_auth_cert(chain, key).map_err(TlsError::Build)
}

/// Whether the certificate carries [`PEER_USAGE`]. Says nothing about who signed it.
pub fn is_peer(certificate: &CertificateDer<'_>) -> bool {
    let Ok((_, parsed)) = x509_parser::parse_x509_certificate(certificate) else { return false };
    let Ok(Some(usage)) = parsed.extended_key_usage() else { return false };
    usage.value.other.iter().any(|oid| oid.iter().is_some_and(|arcs| arcs.eq(PEER_USAGE)))
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn roots(bundle: &Bundle) -> Result<Arc<RootCertStore>, TlsError> {
    let mut roots = RootCertStore::empty();
    for authority in bundle.certificates() {
        roots.add(authority.clone()).map_err(TlsError::Trust)?;
    }
    Ok(Arc::new(roots))
}

fn identity(
    certificate_pem: &str,
    key_pem: &str,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), TlsError> {
    let chain = CertificateDer::pem_slice_iter(certificate_pem.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(TlsError::Certificate)?;
    if chain.is_empty() {
        return Err(TlsError::NoCertificate);
    }
    let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes()).map_err(TlsError::Key)?;
    Ok((chain, key))
}

fn require_peer(certificate: &CertificateDer<'_>) -> Result<(), RustlsError> {
    if is_peer(certificate) { Ok(()) } else { Err(CertificateError::InvalidPurpose.into()) }
}

#[derive(Debug)]
struct PeerClientVerifier(Arc<dyn ClientCertVerifier>);

impl ClientCertVerifier for PeerClientVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, RustlsError> {
        let verified = self.0.verify_client_cert(end_entity, intermediates, now)?;
        require_peer(end_entity).map(|()| verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, RustlsError> {
        self.0.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, RustlsError> {
        self.0.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

#[derive(Debug)]
struct PeerServerVerifier(Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for PeerServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, RustlsError> {
        let verified =
            self.0.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)?;
        require_peer(end_entity).map(|()| verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, RustlsError> {
        self.0.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, RustlsError> {
        self.0.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::{Bundle, client_config, keys_match, peer_client_config, peer_server_config, server_config};
    use crate::{Authority, Issued, Leaf, names};
    use jiff::Timestamp;
    use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection};
    use std::sync::Arc;

    struct Cluster {
        authority: Authority,
        bundle: Bundle,
    }

    impl Cluster {
        fn new() -> Self {
            let authority = Authority::create("pg", Timestamp::now()).unwrap();
            let bundle = Bundle::from_pem(authority.certificate_pem()).unwrap();
            Self { authority, bundle }
        }

        fn issue(&self, leaf: &Leaf) -> Issued {
            self.authority.issue(leaf, Timestamp::now()).unwrap()
        }

        fn peer(&self) -> Issued {
            self.issue(&Leaf::peer("pg", names::peer_names("pg", "shop")))
        }

        fn listens(&self, with: &Issued) -> ServerConfig {
            peer_server_config(&self.bundle, with.certificate_pem(), with.key_pem()).unwrap()
        }

        fn dials(&self, with: &Issued) -> ClientConfig {
            peer_client_config(&self.bundle, with.certificate_pem(), with.key_pem()).unwrap()
        }
    }

    /// A whole handshake in memory, then one message each way.
    fn handshake(client: ClientConfig, server: ServerConfig, name: &str) -> Result<(), rustls::Error> {
        let name = name.to_owned().try_into().unwrap();
        let mut client = ClientConnection::new(Arc::new(client), name).unwrap();
        let mut server = ServerConnection::new(Arc::new(server)).unwrap();
        for _ in 0..10 {
            let mut wire = Vec::new();
            client.write_tls(&mut wire).unwrap();
            server.read_tls(&mut wire.as_slice()).unwrap();
            server.process_new_packets()?;
            let mut wire = Vec::new();
            server.write_tls(&mut wire).unwrap();
            client.read_tls(&mut wire.as_slice()).unwrap();
            client.process_new_packets()?;
            if !client.is_handshaking() && !server.is_handshaking() {
                return Ok(());
            }
        }
        Err(rustls::Error::HandshakeNotComplete)
    }

    const POD: &str = "pg-1.pg-pods.shop.svc";

    #[test]
    fn members_of_one_cluster_understand_each_other() {
        let cluster = Cluster::new();
        let (one, two) = (cluster.peer(), cluster.peer());
        handshake(cluster.dials(&one), cluster.listens(&two), POD).unwrap();
    }

    #[test]
    fn a_stranger_is_refused() {
        let (cluster, stranger) = (Cluster::new(), Cluster::new());
        let (ours, theirs) = (cluster.peer(), stranger.peer());
        // Their authority signed their own certificate with our names; each side refuses it by itself.
        let dials = peer_client_config(&cluster.bundle, theirs.certificate_pem(), theirs.key_pem()).unwrap();
        assert!(handshake(dials, cluster.listens(&ours), POD).is_err());
        let listens =
            peer_server_config(&cluster.bundle, theirs.certificate_pem(), theirs.key_pem()).unwrap();
        assert!(handshake(cluster.dials(&ours), listens, POD).is_err());
    }

    #[test]
    fn a_client_certificate_is_no_peer() {
        let cluster = Cluster::new();
        let (peer, role) = (cluster.peer(), cluster.issue(&Leaf::client("postgres")));
        assert!(handshake(cluster.dials(&role), cluster.listens(&peer), POD).is_err());
        let server = cluster.issue(&Leaf::server(names::server_names("pg", "shop", &["pgwrite"])));
        assert!(handshake(cluster.dials(&peer), cluster.listens(&server), POD).is_err());
        assert!(handshake(cluster.dials(&server), cluster.listens(&peer), POD).is_err());
    }

    #[test]
    fn nobody_without_a_certificate_gets_in() {
        let cluster = Cluster::new();
        let anonymous = client_config(&cluster.bundle, None).unwrap();
        assert!(handshake(anonymous, cluster.listens(&cluster.peer()), POD).is_err());
    }

    #[test]
    fn a_peer_of_another_name_is_refused() {
        let cluster = Cluster::new();
        let (one, two) = (cluster.peer(), cluster.peer());
        assert!(handshake(cluster.dials(&one), cluster.listens(&two), "pg-1.other-pods.shop.svc").is_err());
    }

    #[test]
    fn during_a_rotation_both_authorities_are_trusted() {
        let (old, new) = (Cluster::new(), Cluster::new());
        let both = Bundle::from_pem(&(old.bundle.to_pem() + &new.bundle.to_pem())).unwrap();
        let (one, two) = (old.peer(), new.peer());
        let dials = peer_client_config(&both, one.certificate_pem(), one.key_pem()).unwrap();
        let listens = peer_server_config(&both, two.certificate_pem(), two.key_pem()).unwrap();
        handshake(dials, listens, POD).unwrap();
    }

    #[test]
    fn an_expired_peer_is_refused() {
        let cluster = Cluster::new();
        let long_ago = Timestamp::now() - jiff::SignedDuration::from_hours(24 * 91);
        let leaf = Leaf::peer("pg", names::peer_names("pg", "shop"));
        let expired = cluster.authority.issue(&leaf, long_ago).unwrap();
        assert!(handshake(cluster.dials(&cluster.peer()), cluster.listens(&expired), POD).is_err());
    }

    #[test]
    fn ordinary_clients_verify_services() {
        let cluster = Cluster::new();
        let server = cluster.issue(&Leaf::server(names::server_names("pg", "shop", &["pgwrite"])));
        for name in ["pgwrite", "pgwrite.shop.svc", "pg-2.pg-pods.shop.svc.cluster.local", "localhost"] {
            let listens = server_config(server.certificate_pem(), server.key_pem()).unwrap();
            handshake(client_config(&cluster.bundle, None).unwrap(), listens, name).unwrap();
        }
    }

    #[test]
    fn a_key_of_another_certificate_is_noticed() {
        let cluster = Cluster::new();
        let (one, two) = (cluster.peer(), cluster.peer());
        keys_match(one.certificate_pem(), one.key_pem()).unwrap();
        assert!(keys_match(one.certificate_pem(), two.key_pem()).is_err());
    }
}
