//! Passwords: made once, never changed by the operator.
//!
//! A password that exists is kept, whoever wrote it, and only the version that it was read from is written: one that the
//! user changed meanwhile must not be put back; what is derived from it (addresses, URIs) follows the cluster. These
//! Secrets stay with the claims when a cluster is deleted with `Retain` (K15).

use std::collections::BTreeMap;

use api::names::{self, ports};
use k8s_openapi::{ByteString, api::core::v1::Secret};
use rand::distr::{Alphanumeric, SampleString as _};

use super::metadata;
use crate::cluster::ValidatedCluster;

/// Characters of a password: 62^32 is above 190 bits, and letters and digits need no escaping in a URI.
const PASSWORD_LENGTH: usize = 32;

/// The name of PostgreSQL's first superuser.
pub const SUPERUSER: &str = "postgres";

/// A new password.
pub fn random_password() -> String {
    Alphanumeric.sample_string(&mut rand::rng(), PASSWORD_LENGTH)
}

/// The password in a Secret, unless it is empty or no text.
pub fn password_of(secret: &Secret) -> Option<String> {
    text(secret, "password").filter(|password| !password.is_empty())
}

/// The text under a key of a Secret.
pub fn text(secret: &Secret, key: &str) -> Option<String> {
    String::from_utf8(secret.data.as_ref()?.get(key)?.0.clone()).ok()
}

/// The superuser's Secret.
pub fn superuser(cluster: &ValidatedCluster, there: Option<&Secret>) -> Secret {
    let password = kept_or_new(there);
    let data = [("username", SUPERUSER.to_owned()), ("user", SUPERUSER.to_owned()), ("password", password)];
    opaque(cluster, names::superuser_secret(&cluster.name), there, data)
}

/// The application's Secret. Kept connections to a vanished node end by the settings in the URIs (K6): nothing else would
/// end them.
pub fn app(cluster: &ValidatedCluster, there: Option<&Secret>, authority: &str) -> Secret {
    let password = kept_or_new(there);
    let init = &cluster.spec.bootstrap.init;
    let host = names::service_host(&cluster.write_service(), &cluster.namespace);
    let port = ports::POSTGRES;
    let (user, database) = (&init.owner, &init.database);
    let secret = percent(&password);
    let uri = format!(
        "postgresql://{user}:{secret}@{host}:{port}/{database}?sslmode=require&connect_timeout=2\
         &keepalives=1&keepalives_idle=2&keepalives_interval=1&keepalives_count=3&tcp_user_timeout=3000"
    );
    let jdbc_uri = format!(
        "jdbc:postgresql://{host}:{port}/{database}?user={user}&password={secret}&sslmode=require\
         &connectTimeout=2&loginTimeout=5&socketTimeout=30&tcpKeepAlive=true"
    );
    let data = [
        ("host", host),
        ("port", port.to_string()),
        ("dbname", database.clone()),
        ("user", user.clone()),
        ("username", user.clone()),
        ("password", password),
        ("uri", uri),
        ("jdbc-uri", jdbc_uri),
        ("ca.crt", authority.to_owned()),
    ];
    opaque(cluster, names::app_secret(&cluster.name), there, data)
}

fn kept_or_new(there: Option<&Secret>) -> String {
    there.and_then(password_of).unwrap_or_else(random_password)
}

fn opaque<const N: usize>(
    cluster: &ValidatedCluster,
    name: String,
    there: Option<&Secret>,
    data: [(&str, String); N],
) -> Secret {
    let mut metadata = metadata::kept(cluster, name);
    metadata.resource_version = there.and_then(|there| there.metadata.resource_version.clone());
    Secret { metadata, type_: Some("Opaque".to_owned()), data: Some(bytes(data)), ..Secret::default() }
}

/// Text as the data of a Secret.
pub fn bytes<const N: usize>(data: [(&str, String); N]) -> BTreeMap<String, ByteString> {
    data.into_iter().map(|(key, value)| (key.to_owned(), ByteString(value.into_bytes()))).collect()
}

/// Percent-encoding of everything that is not unreserved in a URI: users may set passwords of their own.
fn percent(text: &str) -> String {
    use std::fmt::Write as _;
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_long_and_differ() {
        let (one, two) = (random_password(), random_password());
        assert!(one.len() == PASSWORD_LENGTH && one != two);
        assert_eq!(percent(&one), one);
    }

    #[test]
    fn a_users_own_password_fits_in_a_uri() {
        assert_eq!(percent("a/b@c:d é"), "a%2Fb%40c%3Ad%20%C3%A9");
    }
}
