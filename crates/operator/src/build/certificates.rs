//! The cluster's authority and the certificates that it signs.
//!
//! Decides when a certificate is made anew: it is missing, cannot be read, does not fit its key, says something else than
//! it should, was signed by another authority, or has lived two thirds of its life. Members take a new one without a
//! restart (K10). The authority's key is in a Secret of its own that members cannot read; it is replaced by [`rotation`].

use std::collections::{BTreeMap, BTreeSet};

use api::names;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use pki::{Authority, AuthorityError, BundleError, Fingerprint, Leaf, needs_renewal};

use super::{
    metadata,
    secrets::{bytes, text},
};
use crate::{cluster::ValidatedCluster, digest};

pub mod rotation;

use rotation::{Acknowledged, CURRENT, NEXT, PUBLISHED_AT, ROTATED_FOR, Told};

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

impl Existing {
    /// The leaves by the words that members use for them.
    fn leaves(&self) -> [(&'static str, Option<&Secret>); 3] {
        [("server", self.server.as_ref()), ("client", self.client.as_ref()), ("peer", self.peer.as_ref())]
    }

    /// The digest that a member shows when all that is published here is in force in it.
    pub fn expected_acknowledgement(&self) -> Option<String> {
        rotation::expected(self)
    }
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
    /// What a rotation of the authority is doing.
    pub rotation: Told,
}

/// Keeps what is good and makes what is not. `members` is what each member says is in force in it.
pub fn build(
    cluster: &ValidatedCluster,
    existing: &Existing,
    members: &Acknowledged,
    now: Timestamp,
) -> Result<Certificates, CertificateError> {
    let leaves = leaves(cluster);
    let issuers = |of: &BTreeSet<Fingerprint>| {
        let there = existing.leaves().into_iter().zip(&leaves);
        there.flat_map(|((_, secret), (_, leaf))| issuers_of(secret, leaf, of)).collect()
    };
    let authorities = rotation::rotate(cluster, existing, members, &issuers, now)?;
    let bundle = authorities.bundle.to_pem();
    let trusted = authorities.bundle.authorities();
    let signing = Signing { authority: &authorities.current, trusted_by_all: authorities.trusted, trusted };
    let make = |(name, leaf): &(String, Leaf), there: Option<&Secret>| {
        leaf_secret(cluster, name.clone(), leaf, there, &signing, &bundle, now)
    };
    let [server, client, peer] = &leaves;
    Ok(Certificates {
        server: make(server, existing.server.as_ref())?,
        client: make(client, existing.client.as_ref())?,
        peer: make(peer, existing.peer.as_ref())?,
        authority: authority_secret(cluster, existing.authority.as_ref(), &authorities),
        bundle,
        rotation: authorities.told,
    })
}

/// The leaves with the names of their Secrets: server, client, peer.
fn leaves(cluster: &ValidatedCluster) -> [(String, Leaf); 3] {
    let (write, read) = (cluster.write_service(), cluster.read_service());
    let server_names = pki::names::server_names(&cluster.name, &cluster.namespace, &[&write, &read]);
    let peer_names = pki::names::peer_names(&cluster.name, &cluster.namespace);
    let peer_name = names::peer_common_name(&cluster.name, &cluster.namespace);
    [
        (names::server_secret(&cluster.name), Leaf::server(server_names)),
        (names::client_secret(&cluster.name), Leaf::client(names::REPLICATION_COMMON_NAME)),
        (names::peer_secret(&cluster.name), Leaf::peer(peer_name, peer_names)),
    ]
}

/// The authority's Secret. Only the version that was read is replaced: two operators that overlap must not each make a
/// successor, nor one take back what the other made.
fn authority_secret(
    cluster: &ValidatedCluster,
    there: Option<&Secret>,
    authorities: &rotation::Authorities,
) -> Secret {
    let mut data = bytes([
        (CURRENT.0, authorities.current.certificate_pem().to_owned()),
        (CURRENT.1, authorities.current.key_pem().to_owned()),
    ]);
    if let Some(next) = &authorities.next {
        data.extend(bytes([
            (NEXT.0, next.certificate_pem().to_owned()),
            (NEXT.1, next.key_pem().to_owned()),
        ]));
    }
    let mut metadata = metadata::kept(cluster, names::ca_secret(&cluster.name));
    let wish = authorities.rotated_for.clone().map(|wish| (ROTATED_FOR.to_owned(), wish));
    let published_at = authorities.published_at.map(|at| (PUBLISHED_AT.to_owned(), at.to_string()));
    let annotations: BTreeMap<String, String> = wish.into_iter().chain(published_at).collect();
    metadata.annotations = (!annotations.is_empty()).then_some(annotations);
    if let Some(there) = there {
        metadata.resource_version.clone_from(&there.metadata.resource_version);
    }
    Secret { metadata, type_: Some("Opaque".to_owned()), data: Some(data), ..Secret::default() }
}

/// Who signs, and who is trusted.
struct Signing<'a> {
    authority: &'a Authority,
    trusted_by_all: bool,
    trusted: BTreeSet<Fingerprint>,
}

fn leaf_secret(
    cluster: &ValidatedCluster,
    name: String,
    leaf: &Leaf,
    there: Option<&Secret>,
    signing: &Signing<'_>,
    bundle: &str,
    now: Timestamp,
) -> Result<Secret, CertificateError> {
    let made_by = |by: Fingerprint| made_for(leaf, by);
    let current = signing.authority.fingerprint();
    let kept = there.and_then(|secret| {
        let said = secret.metadata.annotations.as_ref()?.get(MADE_FOR)?;
        let (certificate, key) = (text(secret, "tls.crt")?, text(secret, "tls.key")?);
        pki::keys_match(&certificate, &key).ok()?;
        let by_current = *said == made_by(current) && !needs_renewal(&certificate, now);
        // A leaf that everybody trusts is better than one that some would refuse (a lost authority was replaced).
        let waits = !signing.trusted_by_all
            && signing.trusted.iter().any(|by| *by != current && *said == made_by(*by))
            && pki::validity(&certificate).is_ok_and(|validity| now < validity.not_after);
        (by_current || waits).then(|| (certificate, key, said.clone()))
    });
    let (certificate, key, said) = if let Some(kept) = kept {
        kept
    } else {
        let issued = signing.authority.issue(leaf, now).map_err(CertificateError::Authority)?;
        (issued.certificate_pem().to_owned(), issued.key_pem().to_owned(), made_by(current))
    };
    let mut metadata = metadata::owned(cluster, name);
    metadata.annotations = Some([(MADE_FOR.to_owned(), said)].into());
    Ok(Secret {
        metadata,
        type_: Some("kubernetes.io/tls".to_owned()),
        data: Some(bytes([("tls.crt", certificate), ("tls.key", key), ("ca.crt", bundle.to_owned())])),
        ..Secret::default()
    })
}

/// Which of these authorities may have signed a leaf: all of them, when that cannot be told.
fn issuers_of(secret: Option<&Secret>, leaf: &Leaf, of: &BTreeSet<Fingerprint>) -> BTreeSet<Fingerprint> {
    let said = secret.and_then(|secret| secret.metadata.annotations.as_ref()?.get(MADE_FOR));
    let by: BTreeSet<_> = of.iter().copied().filter(|by| said == Some(&made_for(leaf, *by))).collect();
    if by.is_empty() { of.clone() } else { by }
}

fn made_for(leaf: &Leaf, by: Fingerprint) -> String {
    digest::short(&format!("{leaf:?} {by:?}"))
}
