//! How much memory PostgreSQL needs at least with its parameters, and whether it may have that much.
//!
//! Two sums: what is sure to be used (shared buffers, WAL buffers, the agent), and that with one query's `work_mem` and one
//! `maintenance_work_mem`, which are upper bounds of operations that may never come. A limit below the first would kill
//! master and followers alike at their first load, so it is refused; the second is what is requested, and told when a node
//! has less. Huge pages are not counted in the memory's limit, and a pod template's limits are its author's: neither is
//! judged. What is written in a form that this code does not know counts as its default; PostgreSQL
//! itself judges it. Proved by `tests`.

use std::collections::BTreeMap;

use api::{PostgresClusterSpec, Size};

const MIB: u64 = 1 << 20;
/// The agent, its supervisor and what a server takes whatever its parameters are.
const REST: u64 = 64 * MIB;
/// How many of the parts are sure to be used.
const SURE: usize = 3;

/// Bytes that a value stands for; `unit` is what a bare number counts.
fn bytes(value: &str, unit: u64) -> Option<u64> {
    let value = value.trim();
    let end = value.find(|c: char| !c.is_ascii_digit()).unwrap_or(value.len());
    let (number, suffix) = value.split_at(end);
    let factor = match suffix.trim() {
        "" => unit,
        "B" => 1,
        "kB" => 1 << 10,
        "MB" => 1 << 20,
        "GB" => 1 << 30,
        "TB" => 1 << 40,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

/// What PostgreSQL needs to do its work, in bytes, and how it comes about.
pub fn needed(parameters: &BTreeMap<String, String>) -> (u64, String) {
    sum(&parts(parameters))
}

/// What is sure to be used comes first: [`SURE`] parts.
fn parts(parameters: &BTreeMap<String, String>) -> [(&'static str, u64); 5] {
    let of = |name: &str, unit: u64, default: u64| {
        let value = parameters.iter().find(|(there, _)| there.eq_ignore_ascii_case(name));
        value.and_then(|(_, value)| bytes(value, unit)).unwrap_or(default)
    };
    let buffers = of("shared_buffers", 8192, 128 * MIB);
    [
        ("the server and its agent", REST),
        ("shared_buffers", buffers),
        // PostgreSQL's own choice when it is not set.
        ("wal_buffers", of("wal_buffers", 8192, (buffers / 32).clamp(64 << 10, 16 * MIB))),
        ("maintenance_work_mem", of("maintenance_work_mem", 1024, 64 * MIB)),
        ("work_mem", of("work_mem", 1024, 4 * MIB)),
    ]
}

fn sum(parts: &[(&str, u64)]) -> (u64, String) {
    let sum = parts.iter().fold(0_u64, |sum, (_, bytes)| sum.saturating_add(*bytes));
    let listed: Vec<String> =
        parts.iter().map(|(name, bytes)| format!("{name} {}", mebibytes(*bytes))).collect();
    (sum, listed.join(" + "))
}

/// Rounded up.
pub fn mebibytes(bytes: u64) -> String {
    format!("{}Mi", bytes.div_ceil(MIB))
}

/// Why the limit is too small, when there is one.
pub fn refusal(spec: &PostgresClusterSpec, parameters: &BTreeMap<String, String>) -> Option<String> {
    let limits = &spec.resources.as_ref()?.limits;
    if limits.keys().any(|name| name.starts_with("hugepages-")) || template_limits(spec) {
        return None;
    }
    let written = limits.get("memory")?.to_string();
    let limit: Size = written.parse().ok()?;
    let parts = parts(parameters);
    let (needed, how) = sum(parts.get(..SURE).unwrap_or_default());
    (needed > limit.as_bytes()).then(|| {
        format!(
            "resources.limits.memory: {written} is less than PostgreSQL surely takes with these parameters ({how}); write more than {}, or lower postgres.parameters",
            mebibytes(needed)
        )
    })
}

/// Whether the pod template has limits of its own for PostgreSQL's container.
fn template_limits(spec: &PostgresClusterSpec) -> bool {
    let containers =
        spec.pod_template.as_ref().and_then(|template| template.pointer("/spec/containers")?.as_array());
    containers.into_iter().flatten().any(|container| {
        container.get("name").and_then(serde_json::Value::as_str) == Some("postgres")
            && container.pointer("/resources/limits").is_some()
    })
}

/// What people should know when nothing limits the memory: the node with the least has less than is needed.
pub fn warning<'a>(
    spec: &PostgresClusterSpec,
    nodes: impl Iterator<Item = (&'a str, &'a str)>,
) -> Option<String> {
    if spec.resources.as_ref().is_some_and(|resources| resources.limits.contains_key("memory")) {
        return None;
    }
    let parameters = spec.postgres.parameters.iter().map(|(name, value)| (name.clone(), value.to_string()));
    let (needed, how) = needed(&parameters.collect());
    let least = nodes
        .filter_map(|(name, memory)| Some((name, memory.parse::<Size>().ok()?)))
        .min_by_key(|(_, size)| *size);
    let (node, memory) = least.filter(|(_, memory)| needed > memory.as_bytes())?;
    Some(format!(
        "node {node} has {} for pods, less than PostgreSQL needs ({how}); lower postgres.parameters",
        mebibytes(memory.as_bytes())
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(more: &str) -> PostgresClusterSpec {
        serde_yaml::from_str(&format!("storage: {{size: 1Gi}}\n{more}")).unwrap()
    }

    fn refused(more: &str) -> Option<String> {
        let spec = spec(more);
        let parameters =
            spec.postgres.parameters.iter().map(|(name, value)| (name.clone(), value.to_string()));
        refusal(&spec, &parameters.collect())
    }

    #[test]
    fn values_are_read_as_postgresql_does() {
        assert_eq!(bytes("128MB", 8192), Some(128 * MIB));
        assert_eq!(bytes("16384", 8192), Some(128 * MIB));
        assert_eq!(bytes("4 GB", 8192), Some(4096 * MIB));
        assert_eq!((bytes("-1", 8192), bytes("1gb", 1), bytes("", 1)), (None, None, None));
    }

    #[test]
    fn a_limit_below_the_need_is_refused_with_what_to_write() {
        let more = "resources: {limits: {memory: 1Gi}}\npostgres: {parameters: {Shared_Buffers: 1GB}}";
        let why = refused(more).unwrap();
        assert!(why.starts_with("resources.limits.memory: 1Gi is less than"), "{why}");
        assert!(
            why.contains("shared_buffers 1024Mi + wal_buffers 16Mi")
                && why.contains("write more than 1104Mi"),
            "{why}"
        );
        assert_eq!(
            refused("resources: {limits: {memory: 1104Mi}}\npostgres: {parameters: {shared_buffers: 1GB}}"),
            None
        );
        assert_eq!(
            refused("resources: {limits: {cpu: 1}}\npostgres: {parameters: {shared_buffers: 1TB}}"),
            None
        );
        assert_eq!(refused("resources: {limits: {memory: 196Mi}}"), None, "PostgreSQL's own defaults fit");
        assert!(refused("resources: {limits: {memory: 195Mi}}").is_some());
        let unlikely = "postgres: {parameters: {maintenance_work_mem: 8GB, work_mem: 1GB}}";
        assert_eq!(refused(&format!("resources: {{limits: {{memory: 512Mi}}}}\n{unlikely}")), None);
    }

    #[test]
    fn huge_pages_and_the_users_own_limits_are_not_judged() {
        let large = "postgres: {parameters: {shared_buffers: 4GB}}";
        let limits = |more: &str| format!("resources: {{limits: {{memory: 1Gi{more}}}}}\n{large}");
        assert!(refused(&limits("")).is_some());
        assert_eq!(refused(&limits(", hugepages-2Mi: 5Gi")), None);
        let template = |container: &str| {
            let container = format!("{{name: {container}, resources: {{limits: {{memory: 8Gi}}}}}}");
            format!("{}\npodTemplate: {{spec: {{containers: [{container}]}}}}", limits(""))
        };
        assert_eq!(refused(&template("postgres")), None);
        assert!(refused(&template("other")).is_some());
    }

    #[test]
    fn a_node_that_is_too_small_is_told_when_nothing_limits() {
        let nodes = [("n1", "8Gi"), ("n2", "2Gi")];
        let large = spec("postgres: {parameters: {shared_buffers: 3GB}}");
        assert!(warning(&large, nodes.into_iter()).unwrap().contains("node n2 has 2048Mi"));
        assert_eq!(warning(&spec(""), nodes.into_iter()), None);
        assert_eq!(warning(&large, std::iter::empty()), None);
    }
}
