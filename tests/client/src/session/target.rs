//! Where to connect, from the `uri` of an app Secret, read as libpq reads it.
//!
//! Decides the meaning of each parameter with libpq's units (`tcp_user_timeout` in milliseconds, the rest in seconds).
//! A parameter that is not understood is an error: a test must not pass because a setting was ignored.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tokio_postgres::Config;
use tokio_postgres::config::SslMode;

/// How long a resolved name is used: as long as a node's own cache would, and short enough for members' names.
const NAME_KEPT: Duration = Duration::from_secs(2);

/// A parsed URI.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// Host name, also the name in the certificate.
    pub(crate) host: String,
    /// Port.
    pub(crate) port: u16,
    /// Whether TLS is verified.
    pub(crate) verify: bool,
    /// The file of the certificate authority that the URI names.
    pub(crate) authority: Option<PathBuf>,
    config: Config,
}

impl Target {
    /// Reads a URI.
    pub(crate) fn parse(uri: &str) -> anyhow::Result<Self> {
        let rest = uri
            .strip_prefix("postgresql://")
            .or_else(|| uri.strip_prefix("postgres://"))
            .context("the URI does not begin with postgresql://")?;
        let (authority, rest) = rest.split_once('/').context("the URI names no database")?;
        let (database, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (user, address) = authority.rsplit_once('@').context("the URI names no user")?;
        let (user, password) = user.split_once(':').map_or((user, None), |(user, word)| (user, Some(word)));
        anyhow::ensure!(!address.contains(','), "the URI names several hosts; this client needs exactly one");
        let (host, port) = host_and_port(address)?;
        let mut config = Config::new();
        config
            .user(decode(user)?)
            .dbname(decode(database)?)
            .application_name("matriarch-client")
            .ssl_mode(SslMode::Disable);
        if let Some(password) = password {
            config.password(decode(password)?);
        }
        let mut authority = None;
        let mut verify = false;
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) =
                pair.split_once('=').with_context(|| format!("parameter {pair:?} has no value"))?;
            let value = decode(value)?;
            let number = || value.parse::<u64>().with_context(|| format!("{key}={value}"));
            match key {
                // Stricter than asked where the URI only says require: this client always has the authority.
                "sslmode" if ["require", "verify-ca", "verify-full"].contains(&value.as_str()) => {
                    verify = true;
                    config.ssl_mode(SslMode::Require);
                }
                "sslmode" if value == "disable" => {}
                "sslmode" => {
                    bail!("sslmode={value}: this client encrypts and verifies, or is told to disable both")
                }
                "connect_timeout" => {
                    config.connect_timeout(Duration::from_secs(number()?));
                }
                "keepalives" => {
                    config.keepalives(number()? != 0);
                }
                "keepalives_idle" => {
                    config.keepalives_idle(Duration::from_secs(number()?));
                }
                "keepalives_interval" => {
                    config.keepalives_interval(Duration::from_secs(number()?));
                }
                "keepalives_count" => {
                    config.keepalives_retries(u32::try_from(number()?)?);
                }
                "tcp_user_timeout" => {
                    config.tcp_user_timeout(Duration::from_millis(number()?));
                }
                "sslrootcert" => authority = Some(PathBuf::from(value)),
                // These name what we always do.
                "target_session_attrs" | "application_name" | "channel_binding" | "options" => {}
                other => bail!("parameter {other} of the URI is not understood"),
            }
        }
        Ok(Self { host, port: port.unwrap_or(5432), verify, authority, config })
    }

    /// The same database through another host name, or `host:port`.
    #[must_use]
    pub(crate) fn through(&self, host: &str) -> Self {
        match host_and_port(host) {
            Ok((host, port)) => Self { host, port: port.unwrap_or(self.port), ..self.clone() },
            Err(_) => Self { host: host.to_owned(), ..self.clone() },
        }
    }

    /// The same with this password where the URI holds none.
    #[must_use]
    pub(crate) fn or_password(mut self, password: Option<String>) -> Self {
        if let Some(password) = password
            && self.config.get_password().is_none()
        {
            self.config.password(password);
        }
        self
    }

    /// What to connect with, to this address under the name.
    pub(crate) fn at(&self, address: IpAddr) -> Config {
        let mut config = self.config.clone();
        config.host(&self.host).hostaddr(address).port(self.port);
        config
    }
}

/// `host`, `host:port`, `address`, `[address]` or `[address]:port`.
fn host_and_port(text: &str) -> anyhow::Result<(String, Option<u16>)> {
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, rest)) => (host, rest.strip_prefix(':')),
        None if text.parse::<IpAddr>().is_ok() => (text, None),
        None => text.rsplit_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
    };
    anyhow::ensure!(!host.is_empty(), "no host in {text:?}");
    let port = port.map(|port| port.parse().with_context(|| format!("port {port:?}"))).transpose()?;
    Ok((host.to_owned(), port))
}

fn decode(text: &str) -> anyhow::Result<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let hex = [rest.next(), rest.next()];
            let digit = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16));
            let (Some(high), Some(low)) = (digit(hex[0]), digit(hex[1])) else {
                bail!("a % in the URI is not followed by two hexadecimal digits");
            };
            bytes.push(u8::try_from(high * 16 + low)?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).context("the URI is not UTF-8")
}

/// Resolves one name, and remembers the answer for [`NAME_KEPT`], or for ever.
#[derive(Debug, Default)]
pub(crate) struct Resolver {
    for_ever: bool,
    known: Mutex<Option<(String, IpAddr, Instant)>>,
}

impl Resolver {
    /// One that asks until there is an answer and never again.
    pub(crate) fn once() -> Self {
        Self { for_ever: true, known: Mutex::default() }
    }

    /// The first address of this host.
    pub(crate) async fn resolve(&self, target: &Target) -> anyhow::Result<IpAddr> {
        if let Ok(address) = target.host.parse() {
            return Ok(address);
        }
        if let Ok(known) = self.known.lock()
            && let Some((host, address, at)) = &*known
            && *host == target.host
            && (self.for_ever || at.elapsed() < NAME_KEPT)
        {
            return Ok(*address);
        }
        let address = tokio::net::lookup_host((target.host.as_str(), target.port))
            .await
            .with_context(|| format!("resolve {}", target.host))?
            .next()
            .with_context(|| format!("{} has no address", target.host))?
            .ip();
        if let Ok(mut known) = self.known.lock() {
            *known = Some((target.host.clone(), address, Instant::now()));
        }
        Ok(address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_an_app_secret_holds() {
        let target = Target::parse(
            "postgresql://app:s%40cret@pg-pgwrite.shop.svc:5432/app?sslmode=verify-full&connect_timeout=2\
             &keepalives_idle=2&tcp_user_timeout=3000",
        )
        .unwrap();
        assert_eq!((target.host.as_str(), target.port, target.verify), ("pg-pgwrite.shop.svc", 5432, true));
        assert_eq!(target.config.get_password(), Some(&b"s@cret"[..]));
        assert_eq!(target.config.get_dbname(), Some("app"));
        assert_eq!(target.config.get_tcp_user_timeout(), Some(&Duration::from_secs(3)));
        assert_eq!(target.through("pg-0").host, "pg-0");
        let beside = target.through("127.0.0.1:5433");
        assert_eq!((beside.host.as_str(), beside.port), ("127.0.0.1", 5433));
    }

    #[test]
    fn reads_what_a_person_types() {
        let target = Target::parse("postgres://me@[::1]/db?sslrootcert=/ca.pem&sslmode=require").unwrap();
        assert_eq!((target.host.as_str(), target.port, target.verify), ("::1", 5432, true));
        assert_eq!(target.authority.as_deref(), Some(std::path::Path::new("/ca.pem")));
        assert_eq!(target.config.get_password(), None);
        let target = target.or_password(Some("secret".to_owned()));
        assert_eq!(target.config.get_password(), Some(&b"secret"[..]));
    }

    #[test]
    fn refuses_what_it_would_have_to_ignore() {
        for uri in [
            "mysql://a:b@c/d",
            "postgresql://a:b@c/d?sslmode=prefer",
            "postgresql://a:b@c/d?hold=1",
            "postgresql://c/d",
            "postgresql://a:b@c,e/d",
            "postgresql://a:b@c:port/d",
            "postgresql://a:b@/d",
            "postgresql://a:%zz@c/d",
        ] {
            assert!(Target::parse(uri).is_err(), "{uri}");
        }
    }
}
