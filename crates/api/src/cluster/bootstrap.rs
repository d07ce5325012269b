//! How the first master is made.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// How the first master is made. Used once.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Bootstrap {
    /// An empty database.
    #[serde(default)]
    pub init: Init,
}

/// An empty database.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Init {
    /// Name of the application's database.
    #[serde(default = "default_name")]
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z_][a-z0-9_-]*$"))]
    #[x_kube(validation = Rule::new("!(self in ['template0', 'template1'])")
        .message("bootstrap.init.database: template0 and template1 belong to PostgreSQL; write for example app"))]
    pub database: String,

    /// Role that owns the database; its password is in the Secret `<cluster>-app`.
    #[serde(default = "default_name")]
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z_][a-z0-9_-]*$"))]
    #[x_kube(validation = Rule::new("self != 'postgres' && self != 'public' && self != 'none' && !self.startsWith('pg_') && !self.startsWith('matriarch')")
        .message("bootstrap.init.owner: postgres, public, none and names that begin with pg_ or matriarch are reserved; write for example app"))]
    pub owner: String,

    /// Encoding of the databases.
    #[serde(default = "default_encoding")]
    #[schemars(length(min = 1, max = 32), regex(pattern = r"^[A-Za-z0-9_-]+$"))]
    pub encoding: String,

    /// Locale of the databases; must exist in the image.
    #[serde(default = "default_locale")]
    #[schemars(length(min = 1, max = 64), regex(pattern = r"^[A-Za-z0-9_.@-]+$"))]
    pub locale: String,

    /// Whether pages carry checksums.
    #[serde(default = "default_checksums")]
    pub data_checksums: bool,
}

impl Default for Init {
    fn default() -> Self {
        Self {
            database: default_name(),
            owner: default_name(),
            encoding: default_encoding(),
            locale: default_locale(),
            data_checksums: default_checksums(),
        }
    }
}

fn default_name() -> String {
    "app".to_owned()
}

fn default_encoding() -> String {
    "UTF8".to_owned()
}

fn default_locale() -> String {
    "C.UTF-8".to_owned()
}

fn default_checksums() -> bool {
    true
}
