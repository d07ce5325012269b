//! What a certificate may be used for: three purposes, none of which can stand in for another.

use crate::{
    authority::{AuthorityError, common_name},
    validity::{self, Validity},
};
use jiff::{SignedDuration, Timestamp};
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose};
use std::fmt;

/// How long a leaf is valid. It is renewed at two thirds of it, so a month is left to notice a failure.
pub const LEAF_LIFETIME: SignedDuration = SignedDuration::from_hours(24 * 90);

/// The extended key usage that only peer certificates carry. A number under 2.25, where no registration is
/// needed; it is never to change, since members of both versions meet during an upgrade.
pub const PEER_USAGE: [u64; 3] = [2, 25, 4_712_036_839_105_528_871];

/// What a certificate is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Leaf {
    /// PostgreSQL's own: proves a host name, cannot log in anywhere.
    Server {
        /// Subject; not used for verification when names are given.
        common_name: String,
        /// DNS names and IP addresses.
        names: Vec<String>,
    },
    /// A member on the peer channel: both ends of it, with [`PEER_USAGE`]. It proves membership of the
    /// cluster; name and incarnation are claims inside that trust (K10).
    Peer {
        /// The member's, or the cluster's, name.
        name: String,
        /// DNS names under which it is reached.
        names: Vec<String>,
    },
    /// A PostgreSQL login by certificate: the common name is the role.
    Client {
        /// The PostgreSQL role.
        role: String,
    },
}

impl Leaf {
    /// A server certificate whose subject is its first name.
    pub fn server(names: Vec<String>) -> Self {
        let common_name = names.first().cloned().unwrap_or_default();
        Self::Server { common_name, names }
    }

    /// A peer certificate.
    pub fn peer(name: impl Into<String>, names: Vec<String>) -> Self {
        Self::Peer { name: name.into(), names }
    }

    /// A client certificate for a PostgreSQL role.
    pub fn client(role: impl Into<String>) -> Self {
        Self::Client { role: role.into() }
    }

    pub(crate) fn params(
        &self,
        now: Timestamp,
        authority: Validity,
    ) -> Result<CertificateParams, AuthorityError> {
        let (subject, names, usages) = match self {
            Self::Server { common_name, names } => {
                (common_name, names.clone(), vec![ExtendedKeyUsagePurpose::ServerAuth])
            }
            Self::Peer { name, names } => (
                name,
                names.clone(),
                vec![
                    ExtendedKeyUsagePurpose::ServerAuth,
                    ExtendedKeyUsagePurpose::ClientAuth,
                    ExtendedKeyUsagePurpose::Other(PEER_USAGE.to_vec()),
                ],
            ),
            Self::Client { role } => (role, Vec::new(), vec![ExtendedKeyUsagePurpose::ClientAuth]),
        };
        let mut params = CertificateParams::new(names)
            .map_err(|source| AuthorityError::Name { name: subject.clone(), source })?;
        // X.520 bounds a common name at 64 characters and some verifiers insist; the names carry the rest.
        let end = subject.char_indices().nth(64).map_or(subject.len(), |(index, _)| index);
        params.distinguished_name = common_name(subject.get(..end).unwrap_or(subject));
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = usages;
        let lifetime = LEAF_LIFETIME.min(authority.not_after.duration_since(now));
        (params.not_before, params.not_after) = validity::offsets(now, lifetime);
        Ok(params)
    }
}

/// A certificate with its private key, ready for a Secret.
pub struct Issued {
    certificate_pem: String,
    key_pem: String,
}

impl Issued {
    pub(crate) fn new(certificate_pem: String, key_pem: String) -> Self {
        Self { certificate_pem, key_pem }
    }

    /// The certificate, PEM.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// The private key, PKCS#8 PEM.
    pub fn key_pem(&self) -> &str {
        &self.key_pem
    }
}

impl fmt::Debug for Issued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issued").field("certificate_pem", &self.certificate_pem).finish_non_exhaustive()
    }
}
