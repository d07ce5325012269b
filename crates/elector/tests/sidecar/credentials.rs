//! Credentials of a kubeconfig that are replaced while the sidecar runs: read anew when the old ones are refused.

use crate::api::{Api, Mode};
use crate::process::{Sidecar, until};

#[test]
fn k11_a_token_that_is_replaced_is_read_anew_however_late() {
    let api = Api::default();
    api.free();
    let door = api.door();
    let one = Sidecar::start(&door, &["--id=one", "--ttl=2s"]);
    one.until_leads();
    let kubeconfig = one.path("kubeconfig");
    let text = std::fs::read_to_string(&kubeconfig).unwrap();
    let with =
        |user: &str| std::fs::write(&kubeconfig, text.replace("user: {}", &format!("user: {user}"))).unwrap();

    door.set(Mode::Wants("first"));
    until("told", || {
        let ready = one.get("/readyz");
        ready.code == 503 && ready.body.contains("Unauthorized")
    });
    until("tried with what is there", || one.log().contains("also after it was read anew"));
    with("{token: first}");
    one.until_leads();

    let file = one.path("token");
    std::fs::write(&file, "second").unwrap();
    with(&format!("{{tokenFile: {}}}", file.display()));
    door.set(Mode::Wants("second"));
    until("read from the file", || one.log().matches("it was read anew").count() >= 3);
    one.until_leads();

    std::fs::write(&file, "third").unwrap();
    door.set(Mode::Wants("third"));
    until("the file is read anew", || one.log().matches("it was read anew").count() >= 4);
    one.until_leads();
    assert_eq!(one.get("/readyz").code, 200);
    // The election's own words for a call, counted by what was answered.
    let metrics = one.get("/metrics").body;
    assert!(metrics.contains("status=\"401\"") && metrics.contains("status=\"200\""), "{metrics}");
}
