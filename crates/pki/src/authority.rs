//! The authority itself: made once per cluster, kept in a Secret, replaced in two phases (K10).

use crate::{
    bundle::Fingerprint,
    leaf::{Issued, Leaf},
    tls,
    validity::{self, Validity, ValidityError},
};
use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, PublicKeyData,
};
use sha2::{Digest, Sha256};
use std::fmt::{self, Write as _};
use thiserror::Error;

/// How long an authority is valid: ten years. Replacing it takes the co-operation of every member.
pub const AUTHORITY_LIFETIME: SignedDuration = SignedDuration::from_hours(24 * 3652);

/// Certificates are valid from a little before they are made: clocks of nodes differ.
pub(crate) const BACKDATED: SignedDuration = SignedDuration::from_mins(10);

/// An authority could not be made or read, or could not sign.
#[derive(Debug, Error)]
pub enum AuthorityError {
    /// No key pair could be generated.
    #[error("cannot generate a key pair")]
    GenerateKey(#[source] rcgen::Error),
    /// A subject or name cannot be put in a certificate.
    #[error("{name:?} cannot be put in a certificate")]
    Name {
        /// The offending name.
        name: String,
        /// What the encoder says.
        #[source]
        source: rcgen::Error,
    },
    /// Signing failed.
    #[error("cannot sign the certificate")]
    Sign(#[source] rcgen::Error),
    /// The stored private key cannot be read.
    #[error("cannot read the authority's private key")]
    ReadKey(#[source] rcgen::Error),
    /// The stored certificate cannot be read.
    #[error("cannot read the authority's certificate")]
    ReadCertificate(#[source] rcgen::Error),
    /// Certificate and key belong to different authorities: half a Secret was replaced.
    #[error("the authority's certificate and private key do not belong together")]
    Mismatch(#[source] tls::TlsError),
    /// The certificate says nothing usable about its validity.
    #[error("cannot read the authority's validity")]
    Validity(#[source] ValidityError),
}

/// A certificate authority with its private key.
pub struct Authority {
    certificate_pem: String,
    key_pem: String,
    validity: Validity,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("validity", &self.validity).finish_non_exhaustive()
    }
}

impl Authority {
    /// Makes the authority of `cluster` (ECDSA P-256, valid [`AUTHORITY_LIFETIME`] from `now`).
    ///
    /// The subject carries the first eight digits of the key's digest, so that an authority and its
    /// successor never share one: OpenSSL looks issuers up by subject.
    pub fn create(cluster: &str, now: Timestamp) -> Result<Self, AuthorityError> {
        let key = generate()?;
        let mut subject = String::from(cluster);
        subject.push_str(" CA ");
        for byte in Sha256::digest(key.subject_public_key_info()).iter().take(4) {
            let _ = write!(subject, "{byte:02x}");
        }
        let mut params = CertificateParams::default();
        params.distinguished_name = common_name(&subject);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        (params.not_before, params.not_after) = validity::offsets(now, AUTHORITY_LIFETIME);
        let certificate = params.self_signed(&key).map_err(AuthorityError::Sign)?;
        Self::from_pem(&certificate.pem(), &key.serialize_pem())
    }

    /// Reads an authority from its Secret and checks that the two halves belong together.
    pub fn from_pem(certificate_pem: &str, key_pem: &str) -> Result<Self, AuthorityError> {
        tls::keys_match(certificate_pem, key_pem).map_err(AuthorityError::Mismatch)?;
        let key = KeyPair::from_pem(key_pem).map_err(AuthorityError::ReadKey)?;
        Issuer::from_ca_cert_pem(certificate_pem, key).map_err(AuthorityError::ReadCertificate)?;
        let validity = validity::validity(certificate_pem).map_err(AuthorityError::Validity)?;
        Ok(Self { certificate_pem: certificate_pem.into(), key_pem: key_pem.into(), validity })
    }

    /// The certificate, PEM.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// The private key, PKCS#8 PEM. It belongs in one Secret and nowhere else.
    pub fn key_pem(&self) -> &str {
        &self.key_pem
    }

    /// The certificate's digest.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of_pem(&self.certificate_pem)
    }

    /// When the authority is valid.
    pub fn validity(&self) -> Validity {
        self.validity
    }

    /// When it was made, to the second.
    pub fn made_at(&self) -> Timestamp {
        self.validity.not_before.saturating_add(BACKDATED).unwrap_or(Timestamp::MAX)
    }

    /// Signs a new certificate with a new key for `leaf`, never valid for longer than the authority.
    pub fn issue(&self, leaf: &Leaf, now: Timestamp) -> Result<Issued, AuthorityError> {
        let authority_key = KeyPair::from_pem(&self.key_pem).map_err(AuthorityError::ReadKey)?;
        let issuer = Issuer::from_ca_cert_pem(&self.certificate_pem, authority_key)
            .map_err(AuthorityError::ReadCertificate)?;
        let key = generate()?;
        let params = leaf.params(now, self.validity)?;
        let certificate = params.signed_by(&key, &issuer).map_err(AuthorityError::Sign)?;
        Ok(Issued::new(certificate.pem(), key.serialize_pem()))
    }
}

fn generate() -> Result<KeyPair, AuthorityError> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(AuthorityError::GenerateKey)
}

pub(crate) fn common_name(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

#[cfg(test)]
mod tests {
    use super::Authority;
    use crate::{Leaf, needs_renewal, validity};
    use jiff::{SignedDuration, Timestamp};

    fn now() -> Timestamp {
        "2026-03-01T00:00:00Z".parse().unwrap()
    }

    #[test]
    fn an_authority_survives_its_secret() {
        let made = Authority::create("pg", now()).unwrap();
        let read = Authority::from_pem(made.certificate_pem(), made.key_pem()).unwrap();
        assert_eq!(made.fingerprint(), read.fingerprint());
        assert!(!format!("{made:?}").contains("PRIVATE"));
    }

    #[test]
    fn half_a_secret_is_refused() {
        let (one, two) = (Authority::create("pg", now()).unwrap(), Authority::create("pg", now()).unwrap());
        assert!(Authority::from_pem(one.certificate_pem(), two.key_pem()).is_err());
    }

    #[test]
    fn two_authorities_of_one_cluster_have_different_subjects() {
        let subject = |pem: &str| {
            let (_, pem) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).unwrap();
            pem.parse_x509().unwrap().subject().to_string()
        };
        let (one, two) = (Authority::create("pg", now()).unwrap(), Authority::create("pg", now()).unwrap());
        assert_ne!(subject(one.certificate_pem()), subject(two.certificate_pem()));
        assert!(subject(one.certificate_pem()).starts_with("CN=pg CA "));
    }

    #[test]
    fn a_leaf_is_renewed_after_two_thirds_of_its_life() {
        let authority = Authority::create("pg", now()).unwrap();
        let leaf = authority.issue(&Leaf::client("postgres"), now()).unwrap();
        let day = |days: i64| now() + SignedDuration::from_hours(24 * days);
        assert!(!needs_renewal(leaf.certificate_pem(), day(59)));
        assert!(needs_renewal(leaf.certificate_pem(), day(61)));
        assert!(needs_renewal("not a certificate", now()));
        let validity = validity(leaf.certificate_pem()).unwrap();
        assert!(validity.not_before < now() && validity.not_after >= day(90));
    }

    #[test]
    fn a_leaf_does_not_outlive_its_authority() {
        let authority = Authority::create("pg", now()).unwrap();
        let late = authority.validity().not_after - SignedDuration::from_hours(24);
        let leaf = authority.issue(&Leaf::client("postgres"), late).unwrap();
        assert_eq!(validity(leaf.certificate_pem()).unwrap().not_after, authority.validity().not_after);
    }
}
