//! Certificates of the rig: one authority, one certificate per component and node, and a kubeconfig for each
//! that speaks to the API server.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use serde_json::json;

use super::layout::{API_PORT, CONTROL_ADDRESS, FIRST_SERVICE_ADDRESS, Layout, Record, write};

/// Makes every certificate of a rig that has none. All of them come from one authority whose key is forgotten
/// afterwards by everybody but the controller manager, which signs with it.
pub(crate) fn create(layout: &Layout, record: &Record) -> Result<()> {
    if layout.kubeconfig().exists() && layout.pki("done").exists() {
        return Ok(());
    }
    let authority = Authority::create(layout)?;
    let names = [
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
    ];
    let addresses = [FIRST_SERVICE_ADDRESS, CONTROL_ADDRESS, "127.0.0.1"];
    let server: Vec<String> =
        names.into_iter().chain(["localhost"]).chain(addresses).map(str::to_owned).collect();
    authority.issue("apiserver", "kube-apiserver", None, server)?;
    authority.issue("kubelet-client", "kube-apiserver-kubelet-client", Some("system:masters"), Vec::new())?;
    authority.issue("front", "front-proxy-client", None, Vec::new())?;
    for (file, user, group) in [
        ("admin", "admin", Some("system:masters")),
        ("controller-manager", "system:kube-controller-manager", None),
        ("scheduler", "system:kube-scheduler", None),
        ("proxy", "system:kube-proxy", None),
    ] {
        authority.issue(file, user, group, Vec::new())?;
        kubeconfig(layout, file, CONTROL_ADDRESS, API_PORT, &layout.inner_kubeconfig(file))?;
    }
    for node in record.nodes() {
        let name = node.name();
        let user = format!("system:node:{name}");
        authority.issue(&name, &user, Some("system:nodes"), vec![name.clone(), node.address()])?;
        kubeconfig(layout, &name, CONTROL_ADDRESS, API_PORT, &layout.inner_kubeconfig(&name))?;
    }
    let accounts = KeyPair::generate().context("making the key of service accounts")?;
    write_secret(layout, "accounts.key", &accounts.serialize_pem())?;
    write(layout.pki("accounts.pub"), accounts.public_key_pem())?;
    kubeconfig(layout, "admin", "127.0.0.1", record.relay_port, &layout.kubeconfig())?;
    write(layout.pki("done"), "")
}

struct Authority<'a> {
    layout: &'a Layout,
    issuer: Issuer<'static, KeyPair>,
}

impl<'a> Authority<'a> {
    fn create(layout: &'a Layout) -> Result<Self> {
        let key = KeyPair::generate().context("making the authority's key")?;
        let mut params = params("rig", None, Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages =
            vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages.clear();
        let certificate = params.self_signed(&key).context("signing the authority's certificate")?;
        write(layout.pki("ca.crt"), certificate.pem())?;
        write_secret(layout, "ca.key", &key.serialize_pem())?;
        Ok(Self { layout, issuer: Issuer::new(params, key) })
    }

    fn issue(&self, file: &str, name: &str, group: Option<&str>, alternatives: Vec<String>) -> Result<()> {
        let key = KeyPair::generate().with_context(|| format!("making the key of {name}"))?;
        let certificate = params(name, group, alternatives)?
            .signed_by(&key, &self.issuer)
            .with_context(|| format!("signing the certificate of {name}"))?;
        write(self.layout.pki(&format!("{file}.crt")), certificate.pem())?;
        write_secret(self.layout, &format!("{file}.key"), &key.serialize_pem())
    }
}

fn params(name: &str, group: Option<&str>, alternatives: Vec<String>) -> Result<CertificateParams> {
    let mut params = CertificateParams::new(alternatives).with_context(|| format!("naming {name}"))?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    if let Some(group) = group {
        params.distinguished_name.push(DnType::OrganizationName, group);
    }
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(2120, 1, 1);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
    // As every installer's certificates have it; Python since 3.13 takes none without.
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn kubeconfig(layout: &Layout, user: &str, host: &str, port: u16, path: &Path) -> Result<()> {
    let read = |file: &str| -> Result<String> {
        let path = layout.pki(file);
        Ok(BASE64.encode(fs::read(&path).with_context(|| format!("reading {}", path.display()))?))
    };
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "rig",
        "clusters": [{"name": "rig", "cluster": {
            "server": format!("https://{host}:{port}"),
            "certificate-authority-data": read("ca.crt")?,
        }}],
        "users": [{"name": user, "user": {
            "client-certificate-data": read(&format!("{user}.crt"))?,
            "client-key-data": read(&format!("{user}.key"))?,
        }}],
        "contexts": [{"name": "rig", "context": {"cluster": "rig", "user": user}}],
    });
    write(path, config.to_string())?;
    private(path)
}

fn write_secret(layout: &Layout, file: &str, contents: &str) -> Result<()> {
    let path = layout.pki(file);
    write(path.clone(), contents)?;
    private(&path)
}

fn private(path: &Path) -> Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))
        .with_context(|| format!("making {} private", path.display()))
}
