//! SCRAM-SHA-256 verifiers, made and checked on our side.
//!
//! Decides that a clear password never reaches a statement, a log or the process list. Must never make a new verifier
//! for a password that the stored one already accepts (each change is WAL and a new salt). Proved by `tests`, against
//! the driver's own implementation, and by `tests/servers/roles.rs`, where a server accepts a login.

use std::num::NonZeroU32;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::{digest, hmac, pbkdf2};

/// A verifier as PostgreSQL stores it: `SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>`.
#[derive(Clone, PartialEq, Eq)]
pub struct Verifier(String);

impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Verifier(…)")
    }
}

impl Verifier {
    /// A new verifier with a random salt and PostgreSQL's default of 4096 iterations.
    pub fn new(password: &str) -> Self {
        Self(postgres_protocol::password::scram_sha_256(password.as_bytes()))
    }

    /// A verifier that somebody else made; none unless it has that form, which also makes it safe in a literal.
    pub fn parse(text: &str) -> Option<Self> {
        parts(text).map(|_| Self(text.to_owned()))
    }

    /// The text form.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// True when this verifier accepts the password.
    pub fn accepts(&self, password: &str) -> bool {
        let Some(parts) = parts(&self.0) else { return false };
        // PostgreSQL falls back to the bytes as they are when SASLprep refuses them.
        let prepared = stringprep::saslprep(password)
            .map_or_else(|_| password.as_bytes().to_vec(), |p| p.as_bytes().to_vec());
        let mut salted = [0; digest::SHA256_OUTPUT_LEN];
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, parts.iterations, &parts.salt, &prepared, &mut salted);
        let key = hmac::Key::new(hmac::HMAC_SHA256, &salted);
        let client_key = hmac::sign(&key, b"Client Key");
        let stored_key = digest::digest(&digest::SHA256, client_key.as_ref());
        let server_key = hmac::sign(&key, b"Server Key");
        stored_key.as_ref() == parts.stored_key && server_key.as_ref() == parts.server_key
    }
}

struct Parts {
    iterations: NonZeroU32,
    salt: Vec<u8>,
    stored_key: Vec<u8>,
    server_key: Vec<u8>,
}

fn parts(text: &str) -> Option<Parts> {
    let rest = text.strip_prefix("SCRAM-SHA-256$")?;
    let (head, keys) = rest.split_once('$')?;
    let (iterations, salt) = head.split_once(':')?;
    let (stored, server) = keys.split_once(':')?;
    let key = |text: &str| STANDARD.decode(text).ok().filter(|k| k.len() == digest::SHA256_OUTPUT_LEN);
    Some(Parts {
        iterations: iterations.parse().ok()?,
        salt: STANDARD.decode(salt).ok()?,
        stored_key: key(stored)?,
        server_key: key(server)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verifier_accepts_its_password_and_no_other() {
        for password in ["secret", "pässword", "a\u{00a0}b", "\u{0007}bell"] {
            let verifier = Verifier::new(password);
            assert!(verifier.accepts(password), "{password:?}");
            assert!(!verifier.accepts("other"));
            assert_eq!(Verifier::parse(verifier.as_str()).as_ref(), Some(&verifier));
            assert!(!format!("{verifier:?}").contains("SCRAM"));
        }
    }

    #[test]
    fn anything_else_is_no_verifier() {
        for text in ["", "md5abc", "SCRAM-SHA-256$x", "SCRAM-SHA-256$4096:c2FsdA==$a:b'; DROP ROLE x; --"] {
            assert_eq!(Verifier::parse(text), None, "{text:?}");
        }
    }
}
