//! What stands between an operator and the API server: a log of its writes, and the places where it can be killed or held.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Instant;

use futures::future::BoxFuture;
use http::{Method, Request, Response};
use kube::client::{Body, DynBody};
use tokio::sync::{Mutex as AsyncMutex, watch};
use tower::{BoxError, Layer, Service};

/// A write that the API server answered.
#[derive(Clone, Debug)]
pub(crate) struct Write {
    /// `POST`, `PUT`, `PATCH` or `DELETE`.
    pub(crate) method: Method,
    /// The path below the server's address.
    pub(crate) path: String,
    /// When.
    pub(crate) at: Instant,
}

impl Write {
    /// `PATCH services/pg-pgwrite`, whatever the group and namespace.
    pub(crate) fn told(&self) -> String {
        let namespaced = self.path.split_once("/namespaces/").map_or("", |(_, rest)| rest);
        let what = namespaced.split_once('/').map_or(self.path.as_str(), |(_, what)| what);
        format!("{} {what}", self.method)
    }
}

type Which = Box<dyn Fn(&Method, &str) -> bool + Send>;
type Hook = Box<dyn FnOnce() -> BoxFuture<'static, ()> + Send>;

#[derive(Default)]
struct State {
    writes: Vec<Write>,
    /// How many writes this life still has.
    left: Option<usize>,
    hook: Option<(Which, Hook)>,
}

/// The traffic of one operator. Once it crashed, nothing of it reaches the server any more and it hears nothing.
#[derive(Clone)]
pub(crate) struct Traffic {
    state: Arc<Mutex<State>>,
    crashed: watch::Sender<bool>,
}

impl Traffic {
    /// One that crashes after so many writes: the last one takes place and its answer is lost.
    pub(crate) fn new(writes: Option<usize>) -> Self {
        let state = State { left: writes, ..State::default() };
        Self { state: Arc::new(Mutex::new(state)), crashed: watch::channel(writes == Some(0)).0 }
    }

    /// All writes so far.
    pub(crate) fn writes(&self) -> Vec<Write> {
        self.state.lock().unwrap().writes.clone()
    }

    /// The writes since `then`, told.
    pub(crate) fn since(&self, then: Instant) -> Vec<String> {
        self.writes().iter().filter(|write| write.at >= then).map(Write::told).collect()
    }

    /// Whether it crashed.
    pub(crate) fn crashed(&self) -> bool {
        *self.crashed.borrow()
    }

    /// Runs `act` right before the first write for which `which` holds, which waits for it.
    pub(crate) fn before<F>(
        &self,
        which: impl Fn(&Method, &str) -> bool + Send + 'static,
        act: impl FnOnce() -> F + Send + 'static,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        self.state.lock().unwrap().hook = Some((Box::new(which), Box::new(move || Box::pin(act()))));
    }

    fn hook_of(&self, method: &Method, path: &str) -> Option<Hook> {
        let mut state = self.state.lock().unwrap();
        let fits = state.hook.as_ref().is_some_and(|(which, _)| which(method, path));
        if fits { state.hook.take().map(|(_, hook)| hook) } else { None }
    }

    /// Notes a write; true when it was this life's last.
    fn note(&self, method: Method, path: String) -> bool {
        let mut state = self.state.lock().unwrap();
        state.writes.push(Write { method, path, at: Instant::now() });
        state.left = state.left.map(|left| left.saturating_sub(1));
        let dead = state.left == Some(0);
        if dead {
            self.crashed.send_replace(true);
        }
        dead
    }
}

impl<S> Layer<S> for Traffic {
    type Service = Tapped<S>;

    fn layer(&self, inner: S) -> Tapped<S> {
        Tapped { inner: Arc::new(AsyncMutex::new(inner)), traffic: self.clone() }
    }
}

/// A client's service behind [`Traffic`].
pub(crate) struct Tapped<S> {
    inner: Arc<AsyncMutex<S>>,
    traffic: Traffic,
}

impl<S> Service<Request<Body>> for Tapped<S>
where
    S: Service<Request<Body>, Response = Response<Box<DynBody>>, Error = BoxError> + Send + 'static,
    S::Future: Send,
{
    type Response = Response<Box<DynBody>>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (inner, traffic) = (self.inner.clone(), self.traffic.clone());
        Box::pin(async move {
            let (method, path) = (request.method().clone(), request.uri().path().to_owned());
            let dry = request.uri().query().is_some_and(|query| query.contains("dryRun"));
            let writes = method != Method::GET && !dry;
            if writes && let Some(hook) = traffic.hook_of(&method, &path) {
                hook().await;
            }
            if traffic.crashed() {
                return std::future::pending().await;
            }
            let answer = {
                let mut inner = inner.lock().await;
                std::future::poll_fn(|context| inner.poll_ready(context)).await?;
                inner.call(request)
            };
            let answer = answer.await;
            if (writes && traffic.note(method, path)) || traffic.crashed() {
                return std::future::pending().await;
            }
            answer
        })
    }
}
