//! Events, for people who run `kubectl describe`.
//!
//! An Event that cannot be written never fails what it is about: it is logged and forgotten. Events of the
//! same reason and action are merged, and the *first* note is kept; so numbers that change belong in
//! conditions and logs, not in a note.

use crate::call::{Calls, bounded};
use kube::{
    Resource,
    runtime::events::{Event, EventType, Recorder, Reporter},
};

/// How an Event is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// Something happened.
    Normal,
    /// Something is wrong.
    Warning,
}

/// Writes Events in the name of one process.
#[derive(Clone)]
pub struct Events {
    recorder: Recorder,
    calls: Calls,
}

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Events").finish_non_exhaustive()
    }
}

impl Events {
    /// Events of `controller` (such as `matriarch-operator`) in its pod `instance`.
    pub fn new(calls: Calls, controller: &str, instance: &str) -> Self {
        let reporter = Reporter { controller: controller.into(), instance: Some(instance.into()) };
        Self { recorder: Recorder::new(calls.client().clone(), reporter), calls }
    }

    /// Tells that `reason` (PascalCase, from a bounded set) came about `on` an object while `action` was
    /// being done. Notes are cut at 1 kB.
    pub async fn tell<K>(&self, on: &K, severity: Severity, reason: &str, action: &str, note: &str)
    where
        K: Resource<DynamicType = ()>,
    {
        let event = Event {
            type_: match severity {
                Severity::Normal => EventType::Normal,
                Severity::Warning => EventType::Warning,
            },
            reason: cut(reason, 128),
            note: (!note.is_empty()).then(|| cut(note, 1024)),
            action: cut(action, 128),
            secondary: None,
        };
        let reference = on.object_ref(&());
        let published =
            bounded("publish event", self.calls.bound(), self.recorder.publish(&event, &reference));
        if let Err(error) = published.await {
            tracing::warn!(reason, error = %error.told(), "event not written");
        }
    }
}

/// At most `bytes` bytes of `text`, whole characters.
fn cut(text: &str, bytes: usize) -> String {
    let end = text.char_indices().map(|(at, c)| at + c.len_utf8()).take_while(|end| *end <= bytes).last();
    text.get(..end.unwrap_or(0)).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_long_note_is_cut_between_characters() {
        assert_eq!(super::cut("äöü", 5), "äö");
        assert_eq!(super::cut("abc", 5), "abc");
    }
}
