//! What the operator's chart must render, and what it must refuse to.
//!
//! Decides on the text alone, without a cluster: the parts whose loss nobody would see in a running one (the policy that
//! binds members' hands, K18; the operator's own budget and security context), and that a namespaced installation asks
//! for no rights on the whole cluster. `tests` shows each rule red.

/// Values that the chart's schema must refuse, each with what would come of it.
pub(super) const REFUSED: [(&str, &str); 4] = [
    ("replicas=two", "no number of replicas"),
    ("defaultMajor=14", "a version of PostgreSQL that is not supported"),
    ("http.port=80", "a port that a container without privileges cannot open"),
    ("misspelt=1", "a value that nothing reads"),
];

/// What the default rendering must hold.
const DEFAULTS: [(&str, &[&str]); 4] = [
    (
        "Deployment",
        &[
            "replicas: 2",
            "runAsNonRoot: true",
            "type: RuntimeDefault",
            "allowPrivilegeEscalation: false",
            "readOnlyRootFilesystem: true",
            "- ALL",
        ],
    ),
    ("PodDisruptionBudget", &["maxUnavailable: 1"]),
    ("ValidatingAdmissionPolicy", &["failurePolicy: Fail", "object.spec == oldObject.spec"]),
    ("ValidatingAdmissionPolicyBinding", &["policyName: ", "validationActions:", "Deny"]),
];

/// What the default rendering lacks; empty when it is right.
pub(super) fn lacks(rendered: &str) -> Vec<String> {
    let mut lacking = Vec::new();
    for (kind, pieces) in DEFAULTS {
        let Some((_, text)) = objects(rendered).find(|(there, _)| *there == kind) else {
            lacking.push(format!("no {kind}"));
            continue;
        };
        // Whole lines where a longer one would mean something else (`replicas: 20`).
        let has = |piece: &str| {
            text.lines().any(|line| line.trim() == piece)
                || (!piece.starts_with("replicas") && text.contains(piece))
        };
        lacking.extend(
            pieces.iter().filter(|piece| !has(piece)).map(|piece| format!("{kind} without {piece:?}")),
        );
    }
    lacking
}

/// Rights on the whole cluster in a rendering with `watchNamespaces`; empty when it is right. Roles that only add to the
/// users' own (`aggregate-to-…`) give the operator nothing.
pub(super) fn cluster_wide(rendered: &str) -> Vec<String> {
    objects(rendered)
        .filter(|(kind, text)| match *kind {
            "ClusterRoleBinding" => true,
            "ClusterRole" => !text.contains("rbac.authorization.k8s.io/aggregate-to-"),
            _ => false,
        })
        .map(|(kind, _)| format!("a {kind} in spite of watchNamespaces"))
        .collect()
}

/// Kind and text of each object.
fn objects(rendered: &str) -> impl Iterator<Item = (&str, &str)> {
    rendered.split("\n---").filter_map(|text| {
        let kind = text.lines().find_map(|line| line.strip_prefix("kind: "))?;
        Some((kind.trim(), text))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> String {
        let all = DEFAULTS
            .iter()
            .map(|(kind, pieces)| format!("---\nkind: {kind}\nspec:\n  {}\n", pieces.join("\n  ")));
        all.collect()
    }

    #[test]
    fn whatever_is_taken_away_is_missed() {
        assert_eq!(lacks(&good()), Vec::<String>::new());
        for (kind, pieces) in DEFAULTS {
            let without = good().replace(&format!("kind: {kind}\n"), "kind: Other\n");
            assert_eq!(lacks(&without), [format!("no {kind}")]);
            for piece in pieces {
                assert_eq!(lacks(&good().replace(&format!("  {piece}\n"), "")).len(), 1, "{kind} {piece}");
            }
        }
        assert_eq!(lacks(&good().replace("replicas: 2", "replicas: 20")).len(), 1);
    }

    #[test]
    fn a_namespaced_installation_asks_for_nothing_on_the_whole_cluster() {
        let aggregated = "---\nkind: ClusterRole\nmetadata:\n  labels:\n    rbac.authorization.k8s.io/aggregate-to-view: \"true\"\n";
        let role = "---\nkind: Role\n";
        assert!(cluster_wide(&format!("{aggregated}{role}")).is_empty());
        assert_eq!(
            cluster_wide(&format!("{aggregated}---\nkind: ClusterRole\n---\nkind: ClusterRoleBinding\n"))
                .len(),
            2
        );
    }
}
