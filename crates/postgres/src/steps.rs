//! Every step of ours that outlives this process, told to whoever watches. In the product nobody does.
//!
//! A crash can come after any of them, so a test ends the agent after each: that test's program registers a watcher in
//! its own `main`, the product's never calls [`watch`], and [`took`] is then one load of a pointer. Decides nothing, and
//! must never be asked anything: a step was taken when it is told. The test is `tests/driver`.

use std::sync::OnceLock;

/// What was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A file or directory, durably.
    File,
    /// Whatever a program of PostgreSQL changes: told when it has begun, at each line that it says, and when it has ended.
    Program,
    /// The server, by a statement; mere questions are told too.
    Statement,
    /// A process of the server, by a signal.
    Signal,
    /// What the supervisor was asked for.
    Supervisor,
    /// An object in the API server.
    Api,
}

/// Is told each step on the thread that took it, before that thread goes on.
pub type Watcher = fn(Kind, &str);

static WATCHER: OnceLock<Watcher> = OnceLock::new();

/// Tells this one every step from now on, for as long as the process lives. The first one stays.
pub fn watch(watcher: Watcher) {
    let _ = WATCHER.set(watcher);
}

/// This was done just now. `what` is only called when somebody watches.
pub fn took(kind: Kind, what: impl FnOnce() -> String) {
    if let Some(watcher) = WATCHER.get() {
        watcher(kind, &what());
    }
}
