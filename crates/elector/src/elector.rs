//! One process's part in an election, running.

use std::sync::Arc;

use ha::election::{Candidate, NotInOffice, Times};
use kubernetes::{
    Calls,
    client::Clients,
    leader_election::{Election, Ends, Leadership, Order, View},
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
};

use crate::{
    lead::Lead,
    settings::{InvalidSettings, Settings},
};

/// Stepping down did not work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StepDownError {
    /// It cannot be granted.
    #[error(transparent)]
    NotInOffice(#[from] NotInOffice),
    /// The election ended meanwhile.
    #[error("this candidate has left the election")]
    Left,
}

/// A running part in an election. Dropping it ends it without a release: prefer [`Elector::leave`].
#[derive(Debug)]
pub struct Elector {
    view: watch::Receiver<View>,
    orders: mpsc::Sender<Order>,
    works: Arc<watch::Sender<usize>>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
    identity: String,
    name: String,
    times: Times,
}

/// What others may have of a running election.
#[derive(Debug, Clone)]
pub struct Handle {
    view: watch::Receiver<View>,
    orders: mpsc::Sender<Order>,
    works: Arc<watch::Sender<usize>>,
}

impl Elector {
    /// Takes part from now on.
    ///
    /// # Errors
    /// When the settings are out of bounds.
    pub fn start(clients: &Clients, settings: Settings) -> Result<Self, InvalidSettings> {
        let times = settings.check()?;
        let identity = settings.identity();
        let mut candidate =
            Candidate::new(&identity, times).standing(settings.name.as_str(), settings.priority);
        if settings.fresh_is_free {
            candidate = candidate.taking_fresh();
        }
        let calls = Calls::new(clients.calls.clone(), times.call());
        let election =
            Election::new(&calls, clients.watches.clone(), settings.namespace, settings.election, candidate);
        let (tell, view) = watch::channel(View::default());
        let (orders, received) = mpsc::channel(8);
        let (works, counted) = watch::channel(0);
        let (stop, stopped) = oneshot::channel::<()>();
        let ends = Ends { tell, orders: received, works: counted };
        let task = tokio::spawn(election.run(ends, async {
            // A dropped sender is a wish to stop, too.
            let _ = stopped.await;
        }));
        Ok(Self { view, orders, works: Arc::new(works), stop, task, identity, name: settings.name, times })
    }

    /// Who this candidate is: unique to this start of the process.
    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its times.
    pub fn times(&self) -> &Times {
        &self.times
    }

    /// What is known, woken by every change.
    pub fn view(&self) -> watch::Receiver<View> {
        self.view.clone()
    }

    /// What others may have of it.
    pub fn handle(&self) -> Handle {
        Handle { view: self.view.clone(), orders: self.orders.clone(), works: Arc::clone(&self.works) }
    }

    /// Until this process leads.
    pub async fn lead(&self) -> Lead {
        self.handle().lead().await
    }

    /// Ends the own term in favour of the candidate of that name, or of the best one; returns once the Lease was asked to
    /// be released, after every [`Lead`] of the term was dropped.
    ///
    /// # Errors
    /// When this one does not lead, or nobody of that name stands.
    pub async fn step_down(&self, to: Option<&str>) -> Result<(), StepDownError> {
        self.handle().step_down(to).await
    }

    /// Ends the own term, waits for every [`Lead`] to be dropped, releases the Lease, and leaves. Bounded: after the deadline
    /// nothing is waited for.
    pub async fn leave(self) {
        let _ = self.stop.send(());
        if let Err(error) = self.task.await {
            tracing::error!(error = telemetry::report(&error), "the election ended badly");
        }
    }
}

impl Handle {
    /// What is known, woken by every change.
    pub fn view(&self) -> watch::Receiver<View> {
        self.view.clone()
    }

    /// Until this process leads.
    pub async fn lead(&self) -> Lead {
        let mut view = self.view.clone();
        loop {
            let leadership = view.wait_for(|view| view.leadership.leads()).await.map(|view| view.leadership);
            match leadership {
                Ok(Leadership::Leading { epoch, .. }) => return Lead::new(view, epoch, &self.works),
                Ok(_) => {}
                // It has left: nobody leads here any more.
                Err(_) => std::future::pending().await,
            }
        }
    }

    /// As [`Elector::step_down`].
    ///
    /// # Errors
    /// As there.
    pub async fn step_down(&self, to: Option<&str>) -> Result<(), StepDownError> {
        let (answer, answered) = oneshot::channel();
        let order = Order::StepDown { to: to.map(ToOwned::to_owned), answer };
        self.orders.send(order).await.map_err(|_| StepDownError::Left)?;
        Ok(answered.await.map_err(|_| StepDownError::Left)??)
    }
}
