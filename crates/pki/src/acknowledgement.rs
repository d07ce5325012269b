//! How a member says which certificates it uses, and how the operator knows that these are the published ones (K10).
//!
//! One digest over all pairs of certificate and bundle, made on both sides by this code. Equal means: every one of them
//! is in force, so the member trusts what is published and shows leaves that are published. Different, or absent, proves
//! nothing.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

use crate::bundle::{Bundle, Fingerprint};

/// The digest of certificates with their bundles, both PEM, by what they are for. `None` when a bundle cannot be read.
#[must_use]
pub fn acknowledgement(in_force: &BTreeMap<&str, (&str, &str)>) -> Option<String> {
    let mut digest = Sha256::new();
    for (purpose, (certificate, bundle)) in in_force {
        let bundle = Bundle::from_pem(bundle).ok()?;
        digest.update(format!("{purpose} {} {}\n", Fingerprint::of_pem(certificate), bundle.fingerprint()));
    }
    let digest: [u8; 32] = digest.finalize().into();
    Some(Fingerprint::from(digest).to_string())
}

#[cfg(test)]
mod tests {
    use super::acknowledgement;
    use crate::{Authority, Leaf};

    #[test]
    fn any_other_certificate_or_bundle_is_another_answer() {
        let now = "2026-03-01T00:00:00Z".parse().unwrap();
        let (one, two) = (Authority::create("pg", now).unwrap(), Authority::create("pg", now).unwrap());
        let leaf = one.issue(&Leaf::client("a"), now).unwrap();
        let other = one.issue(&Leaf::client("a"), now).unwrap();
        let of = |certificate, bundle| acknowledgement(&[("peer", (certificate, bundle))].into());
        let said = of(leaf.certificate_pem(), one.certificate_pem());
        assert_eq!(said.as_ref().map(String::len), Some(64));
        assert_eq!(said, of(leaf.certificate_pem(), one.certificate_pem()));
        assert_ne!(said, of(other.certificate_pem(), one.certificate_pem()));
        assert_ne!(said, of(leaf.certificate_pem(), two.certificate_pem()));
        assert_eq!(of(leaf.certificate_pem(), "rubbish"), None);
    }
}
