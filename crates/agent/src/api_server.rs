//! The way to the API server: every request is counted, and a refused identity is renewed once (K11).
//!
//! A force-deleted pod's token dies at once, and so may one that was rotated under us: the credentials are read anew once,
//! and when the server goes on refusing them, that is told ("my pod object may be gone"). Must never take a refusal for
//! a fact about an object, nor renew again and again: the answer is handed on as it is. Proved by the tests below.

use std::fmt::Debug;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::future::BoxFuture;
use http::{Method, Request, Response, StatusCode};
use kube::client::Body;
use kubernetes::client::Clients;
use tower::service_fn;

use crate::http::{Outcome, StatusHandle, Verb};

/// Reads the credentials anew.
pub(crate) type Renew = Box<dyn Fn() -> BoxFuture<'static, anyhow::Result<Clients>> + Send + Sync>;

/// The same two clients, counted and renewed.
pub(crate) fn watched_over(clients: Clients, renew: Renew, status: StatusHandle) -> Clients {
    let namespace = clients.namespace.clone();
    let state = State { clients, generation: 0, renewing: false, renewed: false, refused: false };
    let identity = Arc::new(Identity { state: Mutex::new(state), renew, status });
    let client = |watches: bool| {
        let identity = Arc::clone(&identity);
        let service = service_fn(move |request| {
            let identity = Arc::clone(&identity);
            async move { identity.ask(watches, request).await }
        });
        kube::Client::new(service, namespace.clone())
    };
    Clients { calls: client(false), watches: client(true), namespace: namespace.clone() }
}

struct Identity {
    state: Mutex<State>,
    renew: Renew,
    status: StatusHandle,
}

#[derive(Debug)]
struct State {
    clients: Clients,
    /// Counts renewals, so that a late answer to older credentials is recognised.
    generation: u64,
    /// A renewal is under way.
    renewing: bool,
    /// Renewed since the server last accepted us.
    renewed: bool,
    /// Told as refused.
    refused: bool,
}

impl Identity {
    async fn ask(&self, watches: bool, request: Request<Body>) -> Result<Response<Body>, kube::Error> {
        let (verb, kind) = (verb(&request), kind(request.uri().path()));
        let (client, generation) = {
            let state = self.lock();
            let client = if watches { &state.clients.watches } else { &state.clients.calls };
            (client.clone(), state.generation)
        };
        let answer = client.send(request).await;
        let outcome = match &answer {
            Ok(answer) if answer.status().is_success() => Outcome::Ok,
            Ok(answer) if answer.status() == StatusCode::CONFLICT => Outcome::Conflict,
            Ok(_) => Outcome::Refused,
            Err(_) => Outcome::Unknown,
        };
        self.status.metrics().requested(verb, kind, outcome);
        match answer.as_ref().ok().map(Response::status) {
            Some(StatusCode::UNAUTHORIZED) => self.refused(generation).await,
            Some(_) => self.accepted(),
            None => {}
        }
        answer
    }

    fn accepted(&self) {
        let mut state = self.lock();
        state.renewed = false;
        if std::mem::take(&mut state.refused) {
            tracing::info!("the API server accepts this pod's identity again");
            self.status.identity_refused(false);
        }
    }

    async fn refused(&self, generation: u64) {
        {
            let mut state = self.lock();
            if state.renewing || state.generation != generation {
                return;
            }
            if std::mem::replace(&mut state.renewed, true) {
                if !std::mem::replace(&mut state.refused, true) {
                    tracing::error!(
                        "the API server refuses this pod's renewed identity: my pod object may be gone"
                    );
                    self.status.identity_refused(true);
                }
                return;
            }
            state.renewing = true;
        }
        let renewing = Renewing(self);
        let renewed = (self.renew)().await;
        drop(renewing);
        let mut state = self.lock();
        match renewed {
            Ok(clients) => {
                tracing::warn!("the API server refused this pod's identity: read anew");
                state.clients = clients;
                state.generation += 1;
            }
            Err(error) => {
                // Nothing was tried, so nothing is known: the next refusal tries again.
                state.renewed = false;
                tracing::warn!(error = format!("{error:#}"), "this pod's identity could not be read anew");
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends the renewal however it ends: whoever asked may have given up meanwhile.
struct Renewing<'a>(&'a Identity);

impl Drop for Renewing<'_> {
    fn drop(&mut self) {
        self.0.lock().renewing = false;
    }
}

fn verb<B>(request: &Request<B>) -> Verb {
    let query = request.uri().query().unwrap_or_default();
    let named = name_follows(request.uri().path());
    match *request.method() {
        Method::GET if query.split('&').any(|it| it == "watch=true" || it == "watch=1") => Verb::Watch,
        Method::GET if !named => Verb::List,
        Method::POST => Verb::Create,
        Method::PUT => Verb::Update,
        Method::PATCH => Verb::Patch,
        Method::DELETE => Verb::Delete,
        _ => Verb::Get,
    }
}

/// The parts behind the namespace: resource, name, sub-resource.
fn resource(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').skip_while(|part| *part != "namespaces").skip(2)
}

fn name_follows(path: &str) -> bool {
    resource(path).nth(1).is_some()
}

/// The kind, out of those that an agent asks for: a label must not be whatever a path says.
fn kind(path: &str) -> &'static str {
    match resource(path).next() {
        Some("leases") => "Lease",
        Some("pods") => "Pod",
        Some("secrets") => "Secret",
        Some("configmaps") => "ConfigMap",
        Some("endpointslices") => "EndpointSlice",
        Some("postgresclusters") => "PostgresCluster",
        Some("events") => "Event",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};

    /// Both clients answer with this status, whatever it is by then.
    fn answering(code: &Arc<AtomicU16>) -> Clients {
        let client = || {
            let code = Arc::clone(code);
            let service = service_fn(move |_: Request<Body>| {
                let status = StatusCode::from_u16(code.load(Ordering::Relaxed)).unwrap();
                async move {
                    let response = Response::builder().status(status);
                    Ok::<_, std::convert::Infallible>(response.body(Body::empty()).unwrap())
                }
            });
            kube::Client::new(service, "shop")
        };
        Clients { calls: client(), watches: client(), namespace: "shop".into() }
    }

    async fn ask(clients: &Clients, path: &str) -> u16 {
        let request = Request::get(path).body(Body::empty()).unwrap();
        clients.calls.send(request).await.unwrap().status().as_u16()
    }

    const LEASE: &str = "/apis/coordination.k8s.io/v1/namespaces/shop/leases/pg";

    #[tokio::test]
    async fn k11_a_refused_identity_is_renewed_once_and_then_told() {
        let (old, new) = (Arc::new(AtomicU16::new(401)), Arc::new(AtomicU16::new(200)));
        let renewals = Arc::new(AtomicUsize::new(0));
        let (count, code) = (Arc::clone(&renewals), Arc::clone(&new));
        let renew: Renew = Box::new(move || {
            count.fetch_add(1, Ordering::Relaxed);
            let clients = answering(&code);
            Box::pin(async move { Ok(clients) })
        });
        let status = StatusHandle::new();
        let clients = watched_over(answering(&old), renew, status.clone());
        assert_eq!(ask(&clients, LEASE).await, 401, "the answer is handed on");
        assert_eq!(ask(&clients, LEASE).await, 200, "with the new credentials");
        assert_eq!(status.document()["podMayBeGone"], false);
        new.store(401, Ordering::Relaxed);
        for _ in 0..5 {
            assert_eq!(ask(&clients, LEASE).await, 401);
        }
        assert_eq!(renewals.load(Ordering::Relaxed), 2, "once per time that it was accepted");
        assert_eq!(status.document()["podMayBeGone"], true);
        new.store(404, Ordering::Relaxed);
        ask(&clients, LEASE).await;
        assert_eq!(status.document()["podMayBeGone"], false, "any other answer is one to us");
        let text = status.metrics().text().unwrap();
        let counted = |outcome: &str, n: u64| {
            let line = format!("api_requests_total{{verb=\"Get\",kind=\"Lease\",outcome=\"{outcome}\"}} {n}");
            assert!(text.contains(&line), "{line}: {text}");
        };
        counted("Ok", 1);
        counted("Refused", 7);
    }

    #[test]
    fn requests_are_counted_by_what_they_ask() {
        let said = |method: Method, uri: &str| {
            let request = Request::builder().method(method).uri(uri).body(()).unwrap();
            (verb(&request), kind(request.uri().path()))
        };
        assert_eq!(said(Method::GET, LEASE), (Verb::Get, "Lease"));
        let pods = "/api/v1/namespaces/shop/pods?fieldSelector=metadata.name%3Dpg-0";
        assert_eq!(said(Method::GET, pods), (Verb::List, "Pod"));
        assert_eq!(said(Method::GET, &format!("{pods}&watch=true")), (Verb::Watch, "Pod"));
        let status = "/apis/matriarch.dev/v1alpha1/namespaces/shop/postgresclusters/pg/status";
        assert_eq!(said(Method::PATCH, status), (Verb::Patch, "PostgresCluster"));
        assert_eq!(said(Method::GET, "/version"), (Verb::List, "other"));
    }
}
