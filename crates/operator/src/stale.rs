//! Whether a slice leads to a pod that is gone (K3): pod addresses are recycled, and clients would send their credentials
//! to a stranger.

use k8s_openapi::api::core::v1::Pod;
use kubernetes::{pods::PodFacts, slices::SliceState};

/// Whether any endpoint names a pod that is not in `pods`, has ended, or has another address. `pods` must have been
/// listed after the slice was read.
pub fn is_stale(slice: &SliceState, pods: &[Pod]) -> bool {
    let pods: Vec<PodFacts> = pods.iter().filter_map(PodFacts::of).collect();
    slice.endpoints.iter().any(|(uid, addresses)| {
        let Some(pod) = pods.iter().find(|pod| Some(&pod.uid) == uid.as_ref()) else { return true };
        pod.finished
            || !addresses.iter().all(|address| pod.addresses.iter().any(|own| own.to_string() == *address))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::discovery::v1::EndpointSlice;
    use serde_json::json;

    fn slice(uid: &str, address: &str) -> SliceState {
        let slice: EndpointSlice = serde_json::from_value(json!({
            "metadata": {"name": "pgwrite-ipv4"}, "addressType": "IPv4",
            "endpoints": [{"addresses": [address], "targetRef": {"kind": "Pod", "uid": uid}}],
        }))
        .unwrap();
        SliceState::of(slice)
    }

    fn pods(phase: &str) -> Vec<Pod> {
        let pod = json!({
            "metadata": {"name": "pg-0", "uid": "u"},
            "status": {"phase": phase, "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}]},
        });
        vec![serde_json::from_value(pod).unwrap()]
    }

    #[test]
    fn k3_a_recycled_address_is_stale() {
        assert!(!is_stale(&slice("u", "10.0.0.1"), &pods("Running")));
        assert!(is_stale(&slice("other", "10.0.0.1"), &pods("Running")), "the pod is another");
        assert!(is_stale(&slice("u", "10.0.0.2"), &pods("Running")), "the address is another's");
        assert!(is_stale(&slice("u", "10.0.0.1"), &pods("Failed")), "the pod has ended");
        assert!(is_stale(&slice("u", "10.0.0.1"), &[]), "the pod is gone");
    }
}
