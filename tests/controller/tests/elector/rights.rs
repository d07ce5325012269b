//! Rights that are missing, and credentials that are no longer good.

use k8s_openapi::api::core::v1::Secret;
use serde_json::json;

use crate::sidecar::Sidecar;
use crate::world::World;

fn all_of_it() -> serde_json::Value {
    json!([{"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "resourceNames": ["web"],
        "verbs": ["get", "list", "watch", "update"]}])
}

#[tokio::test]
async fn missing_rights_are_told_and_granted_ones_are_used_at_once() {
    let world = World::new("rights").await;
    world.free_lease("web").await;
    world.account("elector", &json!([])).await;
    let kubeconfig = world.kubeconfig_of("elector").await;
    let one = Sidecar::start(&kubeconfig, &["--election=web", "--id=one", "--ttl=3s"]);
    one.until("told by /readyz", |one| {
        let ready = one.get("/readyz");
        let sentence =
            "the API server refuses to get the Lease: leases.coordination.k8s.io \"web\" is forbidden";
        ready.code == 503
            && ready.body.contains(sentence)
            && ready.body.contains("needs get, list, watch and update on this Lease")
    });
    assert!(one.log().contains("is forbidden"));
    assert_eq!((one.get("/").code, one.name()), (503, String::new()));
    world.allow("elector", &all_of_it()).await;
    one.until_leads();
    assert_eq!(one.get("/readyz").code, 200);
}

#[tokio::test]
async fn k11_a_token_that_was_revoked_is_read_anew() {
    let world = World::new("revoked").await;
    world.free_lease("web").await;
    world.account("elector", &all_of_it()).await;
    // What a pod's token is bound to is the pod; a Secret needs no node.
    let bound = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "bound"}});
    let bound = world.apply(&bound).await;
    let revoked = world.token("elector", Some(&bound)).await;
    let good = world.token("elector", None).await;
    let inline = |token: &str| world.kubeconfig("inline", Some(json!({"token": token})));
    let token = world.path("token");
    std::fs::write(&token, &revoked).unwrap();
    let named = world.kubeconfig("named", Some(json!({"tokenFile": token})));
    let inlined = inline(&revoked);
    let one = Sidecar::start(&inlined, &["--election=web", "--id=one", "--ttl=3s"]);
    one.until_leads();
    let two = Sidecar::start(&named, &["--election=web", "--id=two", "--ttl=3s"]);
    two.until("follows", |two| two.status()["candidates"].to_string().contains("\"two\""));

    world.delete::<Secret>("bound").await;
    for sidecar in [&one, &two] {
        sidecar.until("refused", |sidecar| {
            sidecar.log().contains("the API server refuses this identity, also after it was read anew")
        });
        sidecar.until("told", |sidecar| sidecar.get("/readyz").body.contains("Unauthorized"));
    }
    // Replaced in place, as a Secret's or a projected volume is.
    inline(&good);
    std::fs::write(&token, &good).unwrap();
    for sidecar in [&one, &two] {
        sidecar.until("ready again", |sidecar| sidecar.get("/readyz").code == 200);
    }
    one.until("one of them leads", |_| [&one, &two].iter().any(|it| it.status()["isLeader"] == true));
}

#[tokio::test]
async fn nothing_but_the_lease_is_touched() {
    let world = World::new("narrow").await;
    world.free_lease("web").await;
    world.free_lease("other").await;
    world.account("elector", &all_of_it()).await;
    let kubeconfig = world.kubeconfig_of("elector").await;
    let one = Sidecar::start(&kubeconfig, &["--election=web", "--id=one", "--ttl=3s"]);
    one.until_leads();
    let two = Sidecar::start(&kubeconfig, &["--election=other", "--id=two", "--ttl=3s"]);
    two.until("refused", |two| two.get("/readyz").body.contains("\"other\" is forbidden"));
    assert_eq!(world.holder("other").await, None);
}
