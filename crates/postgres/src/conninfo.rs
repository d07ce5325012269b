//! libpq connection strings.
//!
//! Decides how values are quoted and which network bounds replication connections have. Must never carry a password.
//! Proved by `tests`, against libpq itself by every integration test that clones or streams.

use std::fmt::Write;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use ha::Incarnation;

/// Client certificate, its key and the authority that the server's certificate must come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientTls {
    /// The client certificate (PEM).
    pub certificate: PathBuf,
    /// Its key (PEM); libpq demands mode 0600 or narrower.
    pub key: PathBuf,
    /// The authorities that are trusted (PEM).
    pub authority: PathBuf,
}

/// A server to stream, clone or rewind from: always a named member, never a role Service (P20).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upstream {
    /// The address that is dialled (K5: never DNS).
    pub address: IpAddr,
    /// The name that its certificate must carry.
    pub server_name: String,
    /// Its port.
    pub port: u16,
    /// How we prove to be a member.
    pub tls: ClientTls,
}

/// Who a connection says it is (§2, Names in PostgreSQL).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// The member's own stream: the application name counts in `synchronous_standby_names`.
    Stream,
    /// A clone: reports flush positions as well, so it must not carry the member's name (P14).
    Clone,
    /// A rewind.
    Rewind,
}

impl Purpose {
    /// The application name of this incarnation for this purpose.
    pub fn application_name(self, incarnation: Incarnation) -> String {
        match self {
            Self::Stream => ha::types::application_name(incarnation),
            Self::Clone => format!("c_{incarnation}"),
            Self::Rewind => format!("r_{incarnation}"),
        }
    }
}

impl Upstream {
    /// The connection string of the member `incarnation` to this server.
    ///
    /// The role is the member's own (`m_…`), proved by certificate. Times out within 5 s at connect and on a dead
    /// peer, so that a vanished upstream is noticed.
    pub fn conninfo(&self, incarnation: Incarnation, purpose: Purpose, database: Option<&str>) -> String {
        let mut info = Conninfo::default();
        info.set("hostaddr", &self.address.to_string());
        info.set("host", &self.server_name);
        info.set("port", &self.port.to_string());
        info.set("user", &ha::types::application_name(incarnation));
        if let Some(database) = database {
            info.set("dbname", database);
        }
        info.set("application_name", &purpose.application_name(incarnation));
        info.set("sslmode", "verify-full");
        info.set_path("sslcert", &self.tls.certificate);
        info.set_path("sslkey", &self.tls.key);
        info.set_path("sslrootcert", &self.tls.authority);
        info.set("ssl_min_protocol_version", "TLSv1.2");
        info.set("gssencmode", "disable");
        info.set("connect_timeout", "5");
        info.set("keepalives", "1");
        info.set("keepalives_idle", "2");
        info.set("keepalives_interval", "1");
        info.set("keepalives_count", "3");
        info.set("tcp_user_timeout", "5000");
        info.0
    }
}

/// A connection string under construction.
#[derive(Debug, Default)]
struct Conninfo(String);

impl Conninfo {
    fn set(&mut self, key: &str, value: &str) {
        if !self.0.is_empty() {
            self.0.push(' ');
        }
        let value = value.replace('\\', "\\\\").replace('\'', "\\'");
        // Writing to a String cannot fail.
        let _ = write!(self.0, "{key}='{value}'");
    }

    fn set_path(&mut self, key: &str, path: &Path) {
        self.set(key, &path.to_string_lossy());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn k5_the_address_is_dialled_values_are_quoted_and_cloning_has_another_name() {
        let tls = ClientTls { certificate: "/a b/c".into(), key: "/k'".into(), authority: r"/x\y".into() };
        let upstream = Upstream {
            address: "10.0.0.1".parse().unwrap(),
            server_name: "pg-0.pg-pods".into(),
            port: 5432,
            tls,
        };
        let stream = upstream.conninfo(Incarnation(0xAB), Purpose::Stream, None);
        assert!(
            stream
                .starts_with("hostaddr='10.0.0.1' host='pg-0.pg-pods' port='5432' user='m_00000000000000ab'")
        );
        assert!(stream.contains(r"sslkey='/k\'' sslrootcert='/x\\y'"), "{stream}");
        assert!(stream.contains("application_name='m_00000000000000ab'"));
        let clone = upstream.conninfo(Incarnation(0xAB), Purpose::Clone, Some("postgres"));
        assert!(
            clone.contains("application_name='c_00000000000000ab'") && clone.contains("dbname='postgres'")
        );
    }
}
