//! YAML in, objects out: the objects of the minimal manifest as snapshots, and what matters in them by rule.

mod common;

use std::collections::BTreeSet;

use common::{MINIMAL, cluster, validated, with_spec};
use jiff::Timestamp;
use k8s_openapi::{api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use operator::build::{
    certificates::{self, Existing, rotation::Acknowledged},
    config_map::{self, Wishes},
    disruption_budget, pod, rbac, secrets, services, stateful_set,
};

fn minimal() -> operator::cluster::ValidatedCluster {
    validated(&cluster(MINIMAL)).expect("the minimal manifest")
}

#[test]
fn stateful_set_of_the_minimal_manifest() {
    let cluster = minimal();
    insta::assert_yaml_snapshot!(stateful_set::build(&cluster, 3, pod::template(&cluster)));
}

#[test]
fn services_of_the_minimal_manifest() {
    let cluster = minimal();
    insta::assert_yaml_snapshot!([
        services::headless(&cluster),
        services::write(&cluster),
        services::read(&cluster)
    ]);
}

#[test]
fn rights_of_the_minimal_manifest() {
    let cluster = minimal();
    let role = rbac::role(&cluster, &cluster.pods(3).into_iter().collect());
    insta::assert_yaml_snapshot!((rbac::service_account(&cluster), &role, rbac::role_binding(&cluster)));
    for rule in role.rules.unwrap() {
        let unnamed = rule.resource_names.is_none();
        let harmless = ["endpointslices", "events"].contains(&rule.resources.unwrap()[0].as_str());
        assert!(!unnamed || harmless && rule.verbs.contains(&"create".to_owned()), "K17: names only");
    }
}

#[test]
fn budget_of_the_minimal_manifest() {
    insta::assert_yaml_snapshot!(disruption_budget::build(&minimal()));
}

#[test]
fn k16_one_member_at_a_time_may_be_evicted_also_when_it_is_the_only_one() {
    for spec in ["", "  instances: 1"] {
        let budget = disruption_budget::build(&validated(&with_spec(spec)).unwrap()).spec.unwrap();
        let most = budget.max_unavailable.and_then(|most| serde_json::to_value(most).ok());
        assert_eq!((most, budget.min_available), (Some(1.into()), None));
    }
}

#[test]
fn settings_of_the_minimal_manifest() {
    let wishes = Wishes { members: minimal().pods(3).into_iter().collect(), ..Wishes::default() };
    insta::assert_json_snapshot!(config_map::member_settings(&minimal(), &wishes, &["IPv4".to_owned()]));
}

#[test]
fn k9_users_own_context_replaces_the_defaults_and_nothing_else() {
    let template = pod::template(&validated(&with_spec("  securityContext: {}")).unwrap());
    let context = template.spec.unwrap().security_context.unwrap();
    assert_eq!((context.run_as_user, context.fs_group), (None, None));
    assert_eq!(context.run_as_non_root, Some(true));
}

#[test]
fn k7_liveness_asks_pid_1_only() {
    let template = pod::template(&minimal());
    let container = &template.spec.unwrap().containers[0];
    let liveness = container.liveness_probe.as_ref().unwrap();
    assert_eq!(
        (liveness.period_seconds, liveness.timeout_seconds, liveness.failure_threshold),
        (Some(1), Some(1), Some(3))
    );
    assert_eq!(liveness.termination_grace_period_seconds, Some(1));
    assert!(container.startup_probe.is_none());
}

#[test]
fn k22_the_users_template_adds_and_replaces() {
    let spec = "  podTemplate: {metadata: {annotations: {a: b}}, spec: {terminationGracePeriodSeconds: 60, containers: [{name: postgres, env: [{name: TZ, value: UTC}]}, {name: side, image: x}]}}";
    let template = pod::template(&validated(&with_spec(spec)).unwrap());
    let pod = template.spec.unwrap();
    assert_eq!(pod.termination_grace_period_seconds, Some(60));
    let of_supervisor = pod.containers[0].env.iter().flatten();
    let grace = of_supervisor.clone().find(|one| one.name == "MATRIARCH_TERMINATION_GRACE_SECONDS").unwrap();
    assert_eq!(grace.value.as_deref(), Some("60"), "its last kill must come before the kubelet's");
    assert_eq!(pod.containers.iter().map(|one| one.name.as_str()).collect::<Vec<_>>(), ["postgres", "side"]);
    let env = pod.containers[0].env.as_ref().unwrap();
    assert!(env.iter().any(|one| one.name == "TZ") && env.iter().any(|one| one.name == "POD_NAME"));
}

#[test]
fn only_what_needs_a_new_pod_changes_the_hash() {
    let hash = |spec: &str| pod::inputs_hash(&validated(&with_spec(spec)).unwrap());
    let same = hash("");
    for spec in ["  instances: 5", "  postgres: {parameters: {work_mem: 1MB}}", "  durability: {mode: async}"]
    {
        assert_eq!(hash(spec), same, "{spec}");
    }
    for spec in
        ["  image: x", "  resources: {requests: {cpu: 1}}", "  podTemplate: {metadata: {labels: {a: b}}}"]
    {
        assert_ne!(hash(spec), same, "{spec}");
    }
}

#[test]
fn passwords_and_uris_of_the_application() {
    let there = Secret {
        metadata: ObjectMeta { resource_version: Some("7".into()), ..ObjectMeta::default() },
        data: Some(secrets::bytes([("password", "p/w".to_owned())])),
        ..Secret::default()
    };
    let secret = secrets::app(&minimal(), Some(&there), "CA");
    assert_eq!(
        secret.metadata.resource_version.as_deref(),
        Some("7"),
        "one that its user changes right now is not put back"
    );
    assert_eq!(secrets::app(&minimal(), None, "CA").metadata.resource_version, None);
    let text = |key: &str| secrets::text(&secret, key).unwrap();
    assert_eq!(text("host"), "pg-pgwrite.shop.svc");
    assert!(text("uri").starts_with("postgresql://app:p%2Fw@pg-pgwrite.shop.svc:5432/app?sslmode=require&"));
    for setting in ["connect_timeout=", "keepalives=1", "tcp_user_timeout="] {
        assert!(text("uri").contains(setting), "K6");
    }
    assert!(
        text("jdbc-uri").contains("socketTimeout=") && text("jdbc-uri").contains("tcpKeepAlive=true"),
        "K6"
    );
    assert_eq!(secrets::password_of(&secret).as_deref(), Some("p/w"));
    assert!(secret.metadata.owner_references.is_none(), "K15: it outlives the cluster");
}

#[test]
fn certificates_are_kept_until_two_thirds_of_their_life() {
    let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
    let cluster = minimal();
    let made = certificates::build(&cluster, &Existing::default(), &Acknowledged::new(), now).unwrap();
    let existing = Existing {
        authority: Some(made.authority.clone()),
        server: Some(made.server.clone()),
        peer: Some(made.peer.clone()),
        client: Some(made.client.clone()),
    };
    let same = certificates::build(&cluster, &existing, &Acknowledged::new(), now).unwrap();
    assert_eq!((&same.authority, &same.server, &same.peer), (&made.authority, &made.server, &made.peer));
    assert!(
        !made.server.data.as_ref().unwrap().contains_key("ca.key"),
        "members never see the authority's key"
    );

    let later = now + jiff::SignedDuration::from_hours(24 * 61);
    let renewed = certificates::build(&cluster, &existing, &Acknowledged::new(), later).unwrap();
    assert_ne!(renewed.server, made.server);
    assert_eq!(renewed.authority, made.authority);

    let renamed = validated(&with_spec("  services: {write: {name: pgwrite}}")).unwrap();
    let other = certificates::build(&renamed, &existing, &Acknowledged::new(), now).unwrap();
    assert_ne!(other.server, made.server, "it must carry the new name");
    assert_eq!(other.peer, made.peer);

    let lost = Existing { authority: None, ..existing };
    let replaced = certificates::build(&cluster, &lost, &Acknowledged::new(), now).unwrap();
    let trusted = secrets::text(&replaced.peer, "ca.crt").unwrap();
    assert_eq!(
        trusted.matches("BEGIN CERTIFICATE").count(),
        2,
        "members of both authorities know each other"
    );
}

#[test]
fn the_role_names_members_before_replicas_grow() {
    let pods: BTreeSet<String> = minimal().pods(5).into_iter().collect();
    let role = rbac::role(&minimal(), &pods);
    let of_pods =
        role.rules.unwrap().into_iter().find(|rule| rule.resources == Some(vec!["pods".into()])).unwrap();
    assert_eq!(of_pods.resource_names.unwrap().len(), 5);
}

#[test]
fn a_pause_is_told_and_nothing_else_changes() {
    let mut cluster = minimal();
    let wishes = Wishes { handover_away: ["pg-0".to_owned()].into(), ..Wishes::default() };
    let before = config_map::member_settings(&cluster, &wishes, &["IPv4".to_owned()]);
    let there = config_map::settings(&cluster, &before).unwrap();
    cluster.spec.paused = true;
    cluster.spec.instances = 5;
    let told = config_map::paused(&cluster, &there).unwrap().expect("not told yet");
    let text = &told.data.as_ref().unwrap()[api::names::SETTINGS_KEY];
    assert_eq!(api::MemberSettings::from_json(text).unwrap(), before.paused());
    assert_eq!(config_map::paused(&cluster, &told).unwrap(), None, "once");
}

#[test]
fn services_are_published_as_the_spec_says_each_on_its_own() {
    let cluster = validated(&with_spec(
        "  services: {write: {type: LoadBalancer, annotations: {lb.example/internal: 'true'}}, read: {type: NodePort}}",
    ))
    .unwrap();
    let (write, read) = (services::write(&cluster), services::read(&cluster));
    let type_of = |service: &k8s_openapi::api::core::v1::Service| service.spec.clone().unwrap().type_;
    assert_eq!(type_of(&write).as_deref(), Some("LoadBalancer"));
    assert_eq!(type_of(&read).as_deref(), Some("NodePort"));
    let annotations = [("lb.example/internal".to_owned(), "true".to_owned())].into();
    assert_eq!(write.metadata.annotations, Some(annotations));
    assert_eq!(read.metadata.annotations, None, "not the other's");
    for service in [&write, &read] {
        assert!(service.spec.as_ref().unwrap().selector.is_none(), "K1, whatever the type");
    }
    assert_eq!(services::headless(&cluster).metadata.annotations, None);
}
