//! The cluster's authority and the certificates that it signs.
//!
//! Decides when a certificate is made anew: it is missing, cannot be read, does not fit its key, says something else than
//! it should, was signed by another authority, or has lived two thirds of its life. Members take a new one without a
//! restart (K10). The authority's key is in a Secret of its own that members cannot read.

use api::names;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use pki::{Authority, AuthorityError, Bundle, BundleError, Leaf, needs_renewal};

use super::{
    metadata,
    secrets::{bytes, text},
};
use crate::{cluster::ValidatedCluster, digest};

/// The annotation that says what a certificate was made for and by whom.
const MADE_FOR: &str = "matriarch.dev/made-for";

/// Certificates could not be made.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// The authority could not be made or used.
    #[error("cannot use the cluster's certificate authority")]
    Authority(#[source] AuthorityError),
    /// The stored authority is damaged. Making another would lock every member out, so a human decides.
    #[error(
        "the Secret {secret} does not hold a certificate authority; restore it, or delete it to get a new one"
    )]
    Damaged {
        /// The Secret.
        secret: String,
        /// What is wrong.
        #[source]
        source: AuthorityError,
    },
    /// The bundle cannot be made.
    #[error("cannot bundle the trusted authorities")]
    Bundle(#[source] BundleError),
}

/// The Secrets as they are now.
#[derive(Clone, Debug, Default)]
pub struct Existing {
    /// The authority.
    pub authority: Option<Secret>,
    /// PostgreSQL's own.
    pub server: Option<Secret>,
    /// Of the channel between agents.
    pub peer: Option<Secret>,
    /// Of replication.
    pub client: Option<Secret>,
}

/// The Secrets as they should be.
#[derive(Clone, Debug)]
pub struct Certificates {
    /// The authority, with its key.
    pub authority: Secret,
    /// PostgreSQL's own.
    pub server: Secret,
    /// Of the channel between agents.
    pub peer: Secret,
    /// Of replication.
    pub client: Secret,
    /// What clients trust.
    pub bundle: String,
}

/// Keeps what is good and makes what is not.
pub fn build(
    cluster: &ValidatedCluster,
    existing: &Existing,
    now: Timestamp,
) -> Result<Certificates, CertificateError> {
    let authority = authority(cluster, existing.authority.as_ref(), now)?;
    let bundle = bundle(existing, &authority)?;
    let leaf = |name: String, leaf: &Leaf, there: Option<&Secret>| {
        leaf_secret(cluster, name, leaf, there, &authority, &bundle, now)
    };
    let (write, read) = (cluster.write_service(), cluster.read_service());
    let server_names = pki::names::server_names(&cluster.name, &cluster.namespace, &[&write, &read]);
    let peer_names = pki::names::peer_names(&cluster.name, &cluster.namespace);
    let peer_name = names::peer_common_name(&cluster.name, &cluster.namespace);
    Ok(Certificates {
        server: leaf(
            names::server_secret(&cluster.name),
            &Leaf::server(server_names),
            existing.server.as_ref(),
        )?,
        peer: leaf(
            names::peer_secret(&cluster.name),
            &Leaf::peer(peer_name, peer_names),
            existing.peer.as_ref(),
        )?,
        client: leaf(
            names::client_secret(&cluster.name),
            &Leaf::client(names::REPLICATION_COMMON_NAME),
            existing.client.as_ref(),
        )?,
        authority: Secret {
            metadata: metadata::kept(cluster, names::ca_secret(&cluster.name)),
            type_: Some("Opaque".to_owned()),
            data: Some(bytes([
                ("ca.crt", authority.certificate_pem().to_owned()),
                ("ca.key", authority.key_pem().to_owned()),
            ])),
            ..Secret::default()
        },
        bundle,
    })
}

fn authority(
    cluster: &ValidatedCluster,
    there: Option<&Secret>,
    now: Timestamp,
) -> Result<Authority, CertificateError> {
    match there.and_then(|secret| Some((text(secret, "ca.crt")?, text(secret, "ca.key")?))) {
        Some((certificate, key)) => Authority::from_pem(&certificate, &key)
            .map_err(|source| CertificateError::Damaged { secret: names::ca_secret(&cluster.name), source }),
        None => Authority::create(&cluster.name, now).map_err(CertificateError::Authority),
    }
}

/// What members trust: the signing authority, and for as long as it is published any former one, so that members of
/// both still know each other when a lost authority was replaced.
fn bundle(existing: &Existing, authority: &Authority) -> Result<String, CertificateError> {
    let published = existing.peer.as_ref().and_then(|secret| text(secret, "ca.crt"));
    let bundle = match published.as_deref().map(Bundle::from_pem) {
        Some(Ok(bundle)) => bundle.with(authority.certificate_pem()),
        _ => Bundle::from_pem(authority.certificate_pem()),
    };
    bundle.map(|bundle| bundle.to_pem()).map_err(CertificateError::Bundle)
}

fn leaf_secret(
    cluster: &ValidatedCluster,
    name: String,
    leaf: &Leaf,
    there: Option<&Secret>,
    authority: &Authority,
    bundle: &str,
    now: Timestamp,
) -> Result<Secret, CertificateError> {
    let made_for = made_for(leaf, authority);
    let kept = there.and_then(|secret| {
        let same = secret.metadata.annotations.as_ref()?.get(MADE_FOR)? == &made_for;
        let (certificate, key) = (text(secret, "tls.crt")?, text(secret, "tls.key")?);
        let good = same && !needs_renewal(&certificate, now) && pki::keys_match(&certificate, &key).is_ok();
        good.then_some((certificate, key))
    });
    let (certificate, key) = if let Some(kept) = kept {
        kept
    } else {
        let issued = authority.issue(leaf, now).map_err(CertificateError::Authority)?;
        (issued.certificate_pem().to_owned(), issued.key_pem().to_owned())
    };
    let mut metadata = metadata::owned(cluster, name);
    metadata.annotations = Some([(MADE_FOR.to_owned(), made_for)].into());
    Ok(Secret {
        metadata,
        type_: Some("kubernetes.io/tls".to_owned()),
        data: Some(bytes([("tls.crt", certificate), ("tls.key", key), ("ca.crt", bundle.to_owned())])),
        ..Secret::default()
    })
}

fn made_for(leaf: &Leaf, authority: &Authority) -> String {
    digest::short(&format!("{leaf:?} {:?}", authority.fingerprint()))
}
