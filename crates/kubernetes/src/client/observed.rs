//! Clients that count what they ask, and read their credentials anew when these are refused (K11).
//!
//! Must never take a refusal for a fact about an object, nor read the credentials again and again: the answer is handed on
//! as it is, and only an answer that is no 401, a renewal that came to nothing, or [`RENEW_AGAIN`] allows the next renewal.
//! Proved by the tests below.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use http::{Method, Request, Response, StatusCode};
use kube::client::Body;
use tokio::time::Instant;

use super::{ClientError, Clients};

/// From one renewal to the next while all are refused: whoever replaces the credentials may come after the refusal.
const RENEW_AGAIN: Duration = Duration::from_secs(10);

/// Reads the credentials anew.
pub(super) type Renew = Box<dyn Fn() -> BoxFuture<'static, Result<Clients, ClientError>> + Send + Sync>;

/// One request, in words that are a bounded set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Asked {
    /// `get`, `list`, `watch`, `create`, `update`, `patch` or `delete`, as in rules of RBAC.
    pub verb: &'static str,
    /// The resource, such as `pods`; `other` for one that this project does not use.
    pub resource: &'static str,
    /// The status of HTTP; `None` when no answer came.
    pub status: Option<u16>,
}

/// Who wants to know.
pub trait Observer: Send + Sync {
    /// A request ended.
    fn asked(&self, asked: Asked);
    /// Whether the API server refuses this identity, also after it was read anew.
    fn refused(&self, refused: bool);
}

struct Identity {
    state: Mutex<State>,
    renew: Renew,
    observer: Arc<dyn Observer>,
}

struct State {
    clients: Clients,
    /// Counts renewals: a late answer to older credentials says nothing of the newer.
    generation: u64,
    /// A renewal is under way.
    renewing: bool,
    /// When they were renewed last, if not accepted since.
    renewed: Option<Instant>,
    /// Told as refused.
    refused: bool,
}

pub(super) fn observed(clients: Clients, renew: Renew, observer: Arc<dyn Observer>) -> Clients {
    let namespace = clients.namespace.clone();
    let state = Mutex::new(State { clients, generation: 0, renewing: false, renewed: None, refused: false });
    let identity = Arc::new(Identity { state, renew, observer });
    let client = |watches: bool| {
        let identity = Arc::clone(&identity);
        let service = tower::service_fn(move |request| {
            let identity = Arc::clone(&identity);
            async move { identity.ask(watches, request).await }
        });
        kube::Client::new(service, namespace.clone())
    };
    Clients { calls: client(false), watches: client(true), namespace: namespace.clone() }
}

impl Identity {
    async fn ask(&self, watches: bool, request: Request<Body>) -> Result<Response<Body>, kube::Error> {
        let (verb, resource) = words(request.method(), request.uri());
        let (client, generation) = {
            let state = self.lock();
            let client = if watches { &state.clients.watches } else { &state.clients.calls };
            (client.clone(), state.generation)
        };
        let answer = client.send(request).await;
        let status = answer.as_ref().ok().map(|answer| answer.status().as_u16());
        self.observer.asked(Asked { verb, resource, status });
        match status {
            Some(status) if status == StatusCode::UNAUTHORIZED.as_u16() => {
                self.unauthorized(generation).await;
            }
            Some(_) => {
                let mut state = self.lock();
                state.renewed = None;
                if std::mem::take(&mut state.refused) {
                    self.observer.refused(false);
                }
            }
            None => {}
        }
        answer
    }

    async fn unauthorized(&self, generation: u64) {
        {
            let mut state = self.lock();
            if state.renewing || state.generation != generation {
                return;
            }
            if let Some(renewed) = state.renewed {
                if !std::mem::replace(&mut state.refused, true) {
                    tracing::error!("the API server refuses this identity, also after it was read anew");
                    self.observer.refused(true);
                }
                if renewed.elapsed() < RENEW_AGAIN {
                    return;
                }
            }
            state.renewing = true;
        }
        // Whoever asked may give up meanwhile: then nothing was renewed, and the next refusal tries again.
        let renewing = Renewing(self);
        let renewed = (self.renew)().await;
        drop(renewing);
        match renewed {
            Ok(clients) => {
                let mut state = self.lock();
                if !state.refused {
                    tracing::warn!("the API server refused this identity: it was read anew");
                }
                state.clients = clients;
                state.generation += 1;
                state.renewed = Some(Instant::now());
            }
            Err(error) => {
                tracing::warn!(error = %chain(&error), "the API server refused this identity, and it cannot be read anew");
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends a renewal however it ends.
struct Renewing<'a>(&'a Identity);

impl Drop for Renewing<'_> {
    fn drop(&mut self) {
        self.0.lock().renewing = false;
    }
}

/// The error and what caused it.
fn chain(error: &ClientError) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

/// Every resource that this project asks for.
const RESOURCES: [&str; 16] = [
    "configmaps",
    "endpointslices",
    "events",
    "leases",
    "nodes",
    "persistentvolumeclaims",
    "persistentvolumes",
    "poddisruptionbudgets",
    "pods",
    "postgresclusters",
    "rolebindings",
    "roles",
    "secrets",
    "serviceaccounts",
    "services",
    "statefulsets",
];

fn words(method: &Method, uri: &http::Uri) -> (&'static str, &'static str) {
    let mut parts = uri.path().split('/').skip(1);
    // /api/v1/… and /apis/<group>/<version>/…
    let prefix = if parts.next() == Some("api") { 1 } else { 2 };
    let mut parts = parts.skip(prefix).peekable();
    if parts.peek() == Some(&"namespaces") {
        parts.nth(1);
    }
    let named = parts.next();
    let resource = RESOURCES.into_iter().find(|known| named == Some(*known)).unwrap_or("other");
    let named = parts.next().is_some();
    let query = uri.query().unwrap_or_default();
    let verb = match *method {
        Method::GET if query.split('&').any(|pair| pair == "watch=true" || pair == "watch=1") => "watch",
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ if named => "get",
        _ => "list",
    };
    (verb, resource)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};

    use super::*;

    #[derive(Default)]
    struct Seen {
        asked: Mutex<Vec<Asked>>,
        refused: Mutex<Vec<bool>>,
    }

    impl Observer for Seen {
        fn asked(&self, asked: Asked) {
            self.asked.lock().unwrap().push(asked);
        }

        fn refused(&self, refused: bool) {
            self.refused.lock().unwrap().push(refused);
        }
    }

    fn answering(code: &Arc<AtomicU16>) -> Clients {
        let client = || {
            let code = Arc::clone(code);
            let service = tower::service_fn(move |_: Request<Body>| {
                let status = code.load(Ordering::Relaxed);
                async move {
                    Ok::<_, std::convert::Infallible>(
                        Response::builder().status(status).body(Body::empty()).unwrap(),
                    )
                }
            });
            kube::Client::new(service, "shop")
        };
        Clients { calls: client(), watches: client(), namespace: "shop".into() }
    }

    #[tokio::test]
    async fn k11_credentials_are_read_anew_once_and_then_it_is_told() {
        let (old, new) = (Arc::new(AtomicU16::new(401)), Arc::new(AtomicU16::new(200)));
        let renewals = Arc::new(AtomicUsize::new(0));
        let (count, code) = (Arc::clone(&renewals), Arc::clone(&new));
        let renew: Renew = Box::new(move || {
            count.fetch_add(1, Ordering::Relaxed);
            let clients = answering(&code);
            Box::pin(async move { Ok(clients) })
        });
        let seen = Arc::new(Seen::default());
        let clients = observed(answering(&old), renew, seen.clone());
        let ask = async || {
            let request = Request::get("/api/v1/namespaces/shop/pods/pg-0").body(Body::empty()).unwrap();
            clients.calls.send(request).await.unwrap().status().as_u16()
        };
        assert_eq!(
            (ask().await, ask().await),
            (401, 200),
            "the answer is handed on, the next has the new identity"
        );
        new.store(401, Ordering::Relaxed);
        for _ in 0..5 {
            assert_eq!(ask().await, 401);
        }
        assert_eq!(renewals.load(Ordering::Relaxed), 2, "once per time that it was accepted");
        new.store(404, Ordering::Relaxed);
        ask().await;
        assert_eq!(*seen.refused.lock().unwrap(), [true, false]);
        let asked = seen.asked.lock().unwrap();
        assert_eq!(asked.len(), 8);
        assert_eq!(asked[1], Asked { verb: "get", resource: "pods", status: Some(200) });
    }

    #[tokio::test(start_paused = true)]
    async fn k11_credentials_that_are_replaced_late_are_found() {
        let code = Arc::new(AtomicU16::new(401));
        let renewals = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&renewals);
        let seen = Arc::new(Seen::default());
        let clients = observed(
            answering(&code),
            Box::new(move || {
                // The first two are too early.
                let late = count.fetch_add(1, Ordering::Relaxed) >= 2;
                let clients = answering(&Arc::new(AtomicU16::new(if late { 200 } else { 401 })));
                Box::pin(async move { Ok(clients) })
            }),
            seen.clone(),
        );
        let start = Instant::now();
        let ask = async || {
            let request = Request::get("/api/v1/namespaces/shop/pods/pg-0").body(Body::empty()).unwrap();
            clients.calls.send(request).await.unwrap().status().as_u16()
        };
        while ask().await == 401 {
            assert!(start.elapsed() <= RENEW_AGAIN * 3, "{} renewals", renewals.load(Ordering::Relaxed));
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        assert_eq!(renewals.load(Ordering::Relaxed), 3, "not at every refusal");
        assert_eq!(*seen.refused.lock().unwrap(), [true, false]);
    }

    #[tokio::test]
    async fn k11_a_renewal_that_came_to_nothing_is_tried_again() {
        let old = Arc::new(AtomicU16::new(401));
        let renewals = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&renewals);
        let renew: Renew = Box::new(move || match count.fetch_add(1, Ordering::Relaxed) {
            0 => Box::pin(std::future::pending()),
            1 => Box::pin(async {
                let missing =
                    kube::config::InClusterError::ReadDefaultNamespace(std::io::ErrorKind::NotFound.into());
                Err(ClientError::InCluster(missing))
            }),
            _ => {
                let clients = answering(&Arc::new(AtomicU16::new(200)));
                Box::pin(async move { Ok(clients) })
            }
        });
        let seen = Arc::new(Seen::default());
        let clients = observed(answering(&old), renew, seen.clone());
        let ask = async || {
            let request = Request::get("/api/v1/namespaces/shop/pods/pg-0").body(Body::empty()).unwrap();
            clients.calls.send(request).await.unwrap().status().as_u16()
        };
        let given_up = tokio::time::timeout(std::time::Duration::from_millis(20), ask()).await;
        assert!(given_up.is_err(), "its renewal takes too long");
        assert_eq!((ask().await, ask().await, ask().await), (401, 401, 200));
        assert_eq!(renewals.load(Ordering::Relaxed), 3);
        assert!(seen.refused.lock().unwrap().is_empty(), "nothing that was renewed was refused");
    }

    #[test]
    fn requests_are_told_by_what_they_ask() {
        let said = |method: Method, uri: &str| words(&method, &uri.parse().unwrap());
        assert_eq!(said(Method::GET, "/api/v1/pods?watch=true"), ("watch", "pods"));
        assert_eq!(said(Method::GET, "/api/v1/namespaces/a/secrets?x=1"), ("list", "secrets"));
        assert_eq!(said(Method::GET, "/api/v1/nodes/n1"), ("get", "nodes"));
        let status = "/apis/matriarch.dev/v1alpha1/namespaces/a/postgresclusters/pg/status";
        assert_eq!(said(Method::PATCH, status), ("patch", "postgresclusters"));
        assert_eq!(said(Method::POST, "/apis/events.k8s.io/v1/namespaces/a/events"), ("create", "events"));
        assert_eq!(said(Method::GET, "/version"), ("list", "other"));
    }
}
