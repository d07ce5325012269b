//! The duty of pointing a Service without selector at this pod while it leads.
//!
//! Each write compares the epoch that the slice carries and goes on that very version: an older leader never writes over a
//! newer one (S5). It is emptied before the Lease is released.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use anyhow::Context as _;
use ha::{Boot, Epoch};
use k8s_openapi::{
    api::core::v1::Service,
    apimachinery::pkg::{apis::meta::v1::OwnerReference, util::intstr::IntOrString},
};
use kubernetes::{
    Calls,
    apply::FieldManager,
    slices::{Family, Published, Route, Slices, Target},
};

use crate::{elector::Handle, lead::Lead};

/// Between two looks at a slice that says what it should: somebody may delete it.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// Which Service, and where it is pointed.
#[derive(Debug, Clone)]
pub struct Pointer {
    /// The Service's namespace.
    pub namespace: String,
    /// The Service's name.
    pub service: String,
    /// This pod.
    pub target: Target,
}

impl Pointer {
    /// Points for ever.
    pub async fn keep(self, calls: Calls, elector: Handle, retry: Duration) {
        let slices = Slices::new(calls.clone(), FieldManager::ELECTION);
        let boot = Boot(rand::random());
        loop {
            let mut lead = elector.lead().await;
            let route = tokio::select! {
                route = self.route_until_known(&calls, retry) => route,
                () = lead.lost() => continue,
            };
            self.while_leading(&slices, &route, &mut lead, boot, retry).await;
            // Once while the Lease is kept; later the next leader does it.
            for family in self.families() {
                let retracted = slices.retract(&route, family, Epoch(lead.epoch()), boot).await;
                if let Err(error) = retracted {
                    tracing::warn!(service = %self.service, error = %error.told(), "the Service may still point here");
                }
            }
        }
    }

    async fn while_leading(
        &self,
        slices: &Slices,
        route: &Route,
        lead: &mut Lead,
        boot: Boot,
        retry: Duration,
    ) {
        let mut told = false;
        loop {
            let mut well = true;
            for family in self.families() {
                if !lead.holds() {
                    return;
                }
                let targets = std::slice::from_ref(&self.target);
                match slices.publish(route, family, Epoch(lead.epoch()), boot, targets).await {
                    Ok(Published::Written) => {
                        tracing::info!(service = %self.service, epoch = lead.epoch(), "the Service points here");
                    }
                    Ok(Published::Unchanged) => {}
                    Ok(Published::Superseded { by }) => {
                        tracing::warn!(service = %self.service, epoch = lead.epoch(), %by, "a later leader wrote the slice");
                    }
                    Err(error) => {
                        well = false;
                        if !told {
                            told = true;
                            tracing::warn!(service = %self.service, error = %error.told(), "the Service does not point here yet");
                        }
                    }
                }
            }
            tokio::select! {
                () = tokio::time::sleep(if well { LOOK_AGAIN } else { retry }) => {}
                () = lead.lost() => return,
            }
        }
    }

    fn families(&self) -> Vec<Family> {
        let mut families: Vec<Family> = self.target.addresses.iter().map(Family::of).collect();
        families.sort_unstable();
        families.dedup();
        families
    }

    async fn route_until_known(&self, calls: &Calls, retry: Duration) -> Route {
        let mut told = false;
        loop {
            match self.route(calls).await {
                Ok(route) => return route,
                Err(error) if !told => {
                    told = true;
                    tracing::warn!(service = %self.service, error = telemetry::report(error.as_ref()), "the Service does not point here yet");
                }
                Err(_) => {}
            }
            tokio::time::sleep(retry).await;
        }
    }

    async fn route(&self, calls: &Calls) -> anyhow::Result<Route> {
        let service = calls
            .get::<Service>(&self.namespace, &self.service)
            .await
            .map_err(|error| anyhow::anyhow!(error.told()))?
            .with_context(|| format!("there is no Service {} in {}", self.service, self.namespace))?;
        route(&self.namespace, &self.service, &service)
    }
}

/// The route of a Service without selector and with one port.
fn route(namespace: &str, name: &str, service: &Service) -> anyhow::Result<Route> {
    let spec = service.spec.clone().unwrap_or_default();
    anyhow::ensure!(
        spec.selector.is_none_or(|selector| selector.is_empty()),
        "the Service {name} has a selector, so Kubernetes points it itself"
    );
    let [port] = spec.ports.as_deref().unwrap_or_default() else {
        anyhow::bail!("the Service {name} must have exactly one port");
    };
    let number = match &port.target_port {
        Some(IntOrString::String(named)) => {
            anyhow::bail!("the Service {name} must name its target port {named:?} by number")
        }
        Some(IntOrString::Int(number)) => *number,
        None => port.port,
    };
    let uid = service.metadata.uid.clone().context("the Service has no UID")?;
    Ok(Route {
        namespace: namespace.to_owned(),
        service: name.to_owned(),
        port_name: port.name.clone().unwrap_or_default(),
        port: u16::try_from(number).context("the Service's target port")?,
        owner: OwnerReference {
            api_version: "v1".to_owned(),
            kind: "Service".to_owned(),
            name: name.to_owned(),
            uid,
            ..OwnerReference::default()
        },
        labels: BTreeMap::new(),
    })
}

/// This pod as a target.
pub fn target(pod: &str, uid: &str, addresses: &[IpAddr], node: &str) -> Target {
    Target {
        pod: pod.to_owned(),
        uid: uid.to_owned(),
        addresses: addresses.to_vec(),
        node: node.to_owned(),
        zone: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn of(spec: &serde_json::Value) -> anyhow::Result<Route> {
        let service = json!({"metadata": {"name": "web", "uid": "u"}, "spec": spec});
        route("shop", "web", &serde_json::from_value(service).unwrap())
    }

    #[test]
    fn a_service_that_cannot_be_pointed_is_told_why() {
        let good = of(&json!({"ports": [{"name": "http", "port": 80, "targetPort": 8080}]})).unwrap();
        assert_eq!((good.port, good.port_name.as_str(), good.owner.kind.as_str()), (8080, "http", "Service"));
        let said = |spec| of(&spec).unwrap_err().to_string();
        assert!(said(json!({"selector": {"a": "b"}, "ports": [{"port": 80}]})).contains("selector"));
        assert!(said(json!({"ports": []})).contains("exactly one"));
        assert!(said(json!({"ports": [{"port": 80, "targetPort": "http"}]})).contains("by number"));
    }
}
