//! What code refuses, each with the sentence that the user sees.

mod common;

use common::{cluster, defaults, validated, with_spec};
use operator::validate::validate;

#[test]
fn each_refusal_says_what_to_write() {
    let refused = [
        (
            "  postgres: {parameters: {FSYNC: \"off\"}}",
            "postgres.parameters.FSYNC: belongs to the operator; remove it",
        ),
        (
            "  postgres: {parameters: {\"work mem\": 1MB}}",
            "postgres.parameters: \"work mem\" is not the name of a parameter",
        ),
        ("  postgres: {parameters: {work_mem: \"1MB\\nfsync=off\"}}", "no line breaks"),
        (
            "  postgres: {parameters: {max_wal_senders: 3}}",
            "postgres.parameters.max_wal_senders: write 20 or more",
        ),
        ("  postgres: {parameters: {Work_Mem: 1MB, work_mem: 2MB}}", "is there twice"),
        ("  postgres: {hba: [\"include other.conf\"]}", "postgres.hba[0]: must begin with host, hostssl"),
        ("  postgres: {hba: [\"local all all trust\"]}", "postgres.hba[0]: must not be a local line"),
        (
            "  postgres: {hba: ['host all all all trust \\ ']}",
            "postgres.hba[0]: must not end with a backslash",
        ),
        (
            "  postgres: {hba: ['host all \"@users\" all trust']}",
            "postgres.hba[0]: must not read another file",
        ),
        (
            "  postgres: {hba: [\"hostssl all all trust\"]}",
            "postgres.hba[0]: write: hostssl database user address method",
        ),
        (
            "  postgres: {hba: [\"host all all 0.0.0.0/0 md5\\nhost all all all trust\"]}",
            "postgres.hba[0]: has a line break",
        ),
        (
            "  durability: {acks: 3}",
            "durability.acks: 3 acknowledgements need more than 3 instances; write acks: 2 or less, or instances: 4 or more",
        ),
        (
            "  resources: {limits: {memory: 256Mi}}\n  postgres: {parameters: {shared_buffers: 1GB}}",
            "resources.limits.memory: 256Mi is less than PostgreSQL surely takes with these parameters (the server and its agent 64Mi + shared_buffers 1024Mi",
        ),
        (
            "  version: 16",
            "version: the operator has no image for PostgreSQL 16; it has images for 17, 18, or write image",
        ),
        ("  services: {write: {name: db}, read: {name: db}}", "services: db would be two Services"),
        ("  services: {write: {name: pg-pods}}", "services: pg-pods would be two Services"),
        ("  podTemplate: {spec: {containers: 7}}", "podTemplate: is not a pod template"),
        (
            "  podTemplate: {spec: {serviceAccountName: admin, containers: []}}",
            "podTemplate: spec.serviceAccountName belongs",
        ),
        (
            "  podTemplate: {spec: {containers: [{name: postgres, command: [sh]}]}}",
            "podTemplate: the command of container postgres",
        ),
        (
            "  podTemplate: {spec: {containers: [{name: side, image: x, resurces: {}, imagePolicy: Always}]}}",
            "podTemplate: is not a pod template: spec.containers[0].imagePolicy is no field of a pod",
        ),
        ("  podTemplate: {metadata: {labels: {role: master}}}", "podTemplate: metadata.labels role"),
    ];
    for (spec, message) in refused {
        let error = validated(&with_spec(spec)).expect_err(spec).to_string();
        assert!(error.contains(message), "{spec}: {error}");
    }
}

#[test]
fn what_users_write_is_accepted() {
    for spec in [
        "",
        "  instances: 1",
        "  durability: {mode: async, acks: 3}",
        "  postgres: {parameters: {shared_buffers: 1GB, max_connections: 200}, sharedPreloadLibraries: [pg_stat_statements], hba: [\"hostssl all all 10.0.0.0/8 scram-sha-256\"]}",
        "  podTemplate: {metadata: {annotations: {a: b}}, spec: {containers: [{name: postgres, env: [{name: TZ, value: UTC}]}]}}",
        "  securityContext: {}",
        "  podTemplate: {metadata: {creationTimestamp: null}, spec: {containers: [], tolerations: [{operator: Exists, tolerationSeconds: 5}], volumes: [{name: v, emptyDir: {sizeLimit: 1Gi}}], initContainers: [{name: i, image: x, livenessProbe: {httpGet: {port: 80}}, resources: {limits: {cpu: \"1\"}}}]}}",
    ] {
        validated(&with_spec(spec)).unwrap_or_else(|error| panic!("{spec}: {error}"));
    }
}

#[test]
fn half_an_order_to_lose_data_is_none() {
    let annotated = |text: &str| {
        let mut cluster = cluster(common::MINIMAL);
        let annotation = (api::names::labels::PROMOTE.to_owned(), text.to_owned());
        cluster.metadata.annotations.get_or_insert_default().extend([annotation]);
        validated(&cluster)
    };
    for (text, why) in [
        ("pg-1", "expected value"),
        (r#"{"member": "pg-1", "epoch": 7}"#, "missing field `allowDataLoss`"),
        (r#"{"member": "pg-1", "epoch": 7, "allowDataLoss": false}"#, "allowDataLoss is not true"),
        (r#"{"member": "pg-1", "allowDataLoss": true}"#, "missing field `epoch`"),
        (r#"{"member": "pg-1", "epoch": 7, "allowDataLoss": true, "after": 1}"#, "unknown field"),
    ] {
        let error = annotated(text).expect_err(text).to_string();
        assert!(error.contains(why) && error.contains("matriarch.dev/promote"), "{text}: {error}");
    }
    let promote = annotated(r#"{"member": "pg-1", "epoch": 7, "allowDataLoss": true}"#).unwrap().promote;
    assert_eq!(promote.map(|promote| (promote.member, promote.epoch)), Some(("pg-1".to_owned(), 7)));
}

#[test]
fn names_that_cannot_be_roots_of_names_are_refused() {
    for name in ["Pg", "1pg", "pg.a", "pg-", &"p".repeat(41)] {
        let mut cluster = cluster(common::MINIMAL);
        cluster.metadata.name = Some(name.to_owned());
        assert!(validated(&cluster).unwrap_err().to_string().contains("at most 40 characters"), "{name}");
    }
}

#[test]
fn k24_what_was_chosen_stays() {
    let mut pinned = cluster(common::MINIMAL);
    let first = validated(&pinned).unwrap().pinned;
    assert_eq!((first.version, first.image.as_deref()), (17, Some("registry.test/postgres:17")));

    pinned.status = Some(api::PostgresClusterStatus { pinned: Some(first.clone()), ..Default::default() });
    let mut newer = defaults();
    newer.major = 18;
    newer.images.insert(17, "registry.test/postgres:17-new".to_owned());
    newer.agent_image = "registry.test/matriarch:2".to_owned();
    assert_eq!(validate(&pinned, None, &newer, false).unwrap().pinned, first, "new defaults change nothing");
    let repinned = validate(&pinned, None, &newer, true).unwrap().pinned;
    assert_eq!(repinned.agent_image, "registry.test/matriarch:2", "a restart of all members was asked for");

    pinned.spec.image = Some("mine".to_owned());
    let own = validate(&pinned, None, &newer, false).unwrap();
    assert_eq!((own.image.as_str(), &own.pinned), ("mine", &first), "taking it back must undo it");
    pinned.spec.image = None;

    pinned.spec.version = Some(18);
    let error = validate(&pinned, None, &newer, false).unwrap_err().to_string();
    assert!(error.contains("this cluster is 17"), "{error}");
}

#[test]
fn a_cluster_that_was_made_again_keeps_its_identity() {
    let cluster = cluster(common::MINIMAL);
    let validated = validate(&cluster, Some("the-first"), &defaults(), false).unwrap();
    assert_eq!(
        (validated.identity.as_str(), validated.uid.as_str()),
        ("the-first", cluster.metadata.uid.as_deref().unwrap())
    );
}
