//! Short digests for annotations: equal when the text is equal, for comparison and not for security.

use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};

/// The first eight bytes of the text's SHA-256 digest, in hexadecimal.
pub fn short(text: &str) -> String {
    Sha256::digest(text).iter().take(8).fold(String::with_capacity(16), |mut digits, byte| {
        let _ = write!(digits, "{byte:02x}");
        digits
    })
}
