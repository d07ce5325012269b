//! The authorities that a cluster trusts: `ca.crt`, one or (during a rotation) two certificates.

use rustls_pki_types::{CertificateDer, pem::PemObject};
use sha2::{Digest, Sha256};
use std::{collections::BTreeSet, fmt};
use thiserror::Error;

/// The SHA-256 digest of a certificate's DER form or of a whole bundle. Members report the one of the
/// bundle they trust; comparing it is how the operator knows who has acknowledged (K10).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    pub(crate) fn of_der(der: &[u8]) -> Self {
        Self(Sha256::digest(der).into())
    }

    /// Of the first certificate in `pem`; of the bytes themselves when there is none.
    pub(crate) fn of_pem(pem: &str) -> Self {
        CertificateDer::from_pem_slice(pem.as_bytes())
            .map_or_else(|_| Self::of_der(pem.as_bytes()), |der| Self::of_der(&der))
    }
}

impl From<[u8; 32]> for Fingerprint {
    fn from(digest: [u8; 32]) -> Self {
        Self(digest)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

/// A bundle could not be read.
#[derive(Debug, Error)]
pub enum BundleError {
    /// A block is not a certificate.
    #[error("certificate {index} of the bundle cannot be read")]
    Read {
        /// Counted from 0.
        index: usize,
        /// What the parser says.
        #[source]
        source: rustls_pki_types::pem::Error,
    },
    /// A block holds something else than an X.509 certificate.
    #[error("certificate {index} of the bundle is not X.509")]
    Parse {
        /// Counted from 0.
        index: usize,
        /// What the parser says.
        #[source]
        source: x509_parser::nom::Err<x509_parser::error::X509Error>,
    },
    /// Trusting nobody is never what is meant.
    #[error("the bundle holds no certificate")]
    Empty,
}

/// Trusted authorities, each once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bundle {
    pems: Vec<String>,
    ders: Vec<CertificateDer<'static>>,
}

impl Bundle {
    /// Reads one or more PEM certificates.
    pub fn from_pem(pem: &str) -> Result<Self, BundleError> {
        let mut bundle = Self { pems: Vec::new(), ders: Vec::new() };
        let texts = split(pem);
        for (index, text) in texts.into_iter().enumerate() {
            let der = CertificateDer::from_pem_slice(text.as_bytes())
                .map_err(|source| BundleError::Read { index, source })?;
            x509_parser::parse_x509_certificate(&der)
                .map_err(|source| BundleError::Parse { index, source })?;
            if !bundle.ders.contains(&der) {
                bundle.ders.push(der);
                bundle.pems.push(text);
            }
        }
        if bundle.ders.is_empty() { Err(BundleError::Empty) } else { Ok(bundle) }
    }

    /// The same bundle with the certificates of `pem` as well.
    pub fn with(&self, pem: &str) -> Result<Self, BundleError> {
        let mut all = self.to_pem();
        all.push_str(pem);
        Self::from_pem(&all)
    }

    /// Those of its certificates that are in `wanted`.
    ///
    /// # Errors
    /// None is: trusting nobody is never what is meant.
    pub fn only(&self, wanted: &BTreeSet<Fingerprint>) -> Result<Self, BundleError> {
        let kept =
            self.ders.iter().zip(&self.pems).filter(|(der, _)| wanted.contains(&Fingerprint::of_der(der)));
        let (ders, pems): (Vec<_>, Vec<_>) = kept.map(|(der, pem)| (der.clone(), pem.clone())).unzip();
        if ders.is_empty() { Err(BundleError::Empty) } else { Ok(Self { pems, ders }) }
    }

    /// PEM, in the order in which they were added.
    pub fn to_pem(&self) -> String {
        self.pems.concat()
    }

    /// The certificates.
    pub fn certificates(&self) -> &[CertificateDer<'static>] {
        &self.ders
    }

    /// The digests of the trusted authorities.
    pub fn authorities(&self) -> BTreeSet<Fingerprint> {
        self.ders.iter().map(|der| Fingerprint::of_der(der)).collect()
    }

    /// One digest for the whole, whatever the order.
    pub fn fingerprint(&self) -> Fingerprint {
        let mut digest = Sha256::new();
        for authority in self.authorities() {
            digest.update(authority.0);
        }
        Fingerprint(digest.finalize().into())
    }
}

/// Each certificate block of `pem` as text of its own, ending in a newline.
fn split(pem: &str) -> Vec<String> {
    const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
    pem.split(BEGIN).skip(1).map(|block| format!("{BEGIN}{}\n", block.trim_end())).collect()
}

#[cfg(test)]
mod tests {
    use super::Bundle;
    use crate::Authority;

    #[test]
    fn a_bundle_holds_each_authority_once_and_has_one_digest_in_any_order() {
        let now = "2026-03-01T00:00:00Z".parse().unwrap();
        let (old, new) = (Authority::create("pg", now).unwrap(), Authority::create("pg", now).unwrap());
        let both = Bundle::from_pem(old.certificate_pem()).unwrap().with(new.certificate_pem()).unwrap();
        let again = both.with(old.certificate_pem()).unwrap();
        assert_eq!(both, again);
        let other_way = Bundle::from_pem(new.certificate_pem()).unwrap().with(old.certificate_pem()).unwrap();
        assert_eq!(both.fingerprint(), other_way.fingerprint());
        assert_eq!(both.authorities(), [old.fingerprint(), new.fingerprint()].into());
        assert_eq!(Bundle::from_pem(&both.to_pem()).unwrap(), both);
    }

    #[test]
    fn a_bundle_forgets_all_but_the_wanted() {
        let now = "2026-03-01T00:00:00Z".parse().unwrap();
        let (old, new) = (Authority::create("pg", now).unwrap(), Authority::create("pg", now).unwrap());
        let both = Bundle::from_pem(old.certificate_pem()).unwrap().with(new.certificate_pem()).unwrap();
        let only = both.only(&[new.fingerprint()].into()).unwrap();
        assert_eq!(only, Bundle::from_pem(new.certificate_pem()).unwrap());
        assert!(both.only(&[].into()).is_err());
    }

    #[test]
    fn nobody_is_not_a_bundle() {
        assert!(Bundle::from_pem("").is_err());
        assert!(
            Bundle::from_pem("-----BEGIN CERTIFICATE-----\nrubbish\n-----END CERTIFICATE-----\n").is_err()
        );
    }
}
