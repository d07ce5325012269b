//! Settings of PostgreSQL that belong to users.

use std::collections::BTreeMap;

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use crate::{Scalar, parameters};

/// What the agent accepts ([`parameters::hba`]), as far as a pattern can say it. A control character other
/// than a tab could smuggle in another line, a backslash at the end joins the next one, `@name` reads another file, and
/// the Unix socket is the agent's alone.
const HBA: &str = r#"self.all(line, line.matches('^(host|hostssl|hostnossl|hostgssenc|hostnogssenc)[ \\t][^\\x00-\\x08\\x0a-\\x1f]*$') && !line.matches('\\\\[ \\t]*$') && !line.matches('[ \\t,]"*@'))"#;

/// Settings of PostgreSQL.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Postgres {
    /// Parameters of `postgresql.conf`. Those that replication and failover rest on belong to the operator.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = parameters::MAX_PARAMETERS))]
    #[x_kube(validation = Rule::new(parameters::cel_rule()).message(Message::Message(parameters::cel_message())))]
    pub parameters: BTreeMap<String, Scalar>,

    /// Libraries that are loaded at the start of the server.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 128), regex(pattern = r"^[A-Za-z0-9_.$/-]+$")))]
    pub shared_preload_libraries: Vec<String>,

    /// Lines of `pg_hba.conf`. They come after those that the operator needs and before the default, which lets
    /// everybody in with a password over TLS; the first line that matches decides. There is no `local` line, as the Unix
    /// socket is the agent's, and none that reads another file (`@file`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 512)))]
    #[x_kube(validation = Rule::new(HBA).message("postgres.hba: each item is one line that begins with host, hostssl, hostnossl, hostgssenc or hostnogssenc, ends without a backslash and reads no @file, such as hostssl all all 10.0.0.0/8 scram-sha-256"))]
    pub hba: Vec<String>,
}
