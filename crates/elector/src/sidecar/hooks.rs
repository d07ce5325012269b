//! The duty of telling the application by commands: one when this pod begins to lead, one when it begins to follow.
//!
//! They never run at the same time: a term's command is ended, with all its children, before the next one starts, and before
//! the Lease is released.

use std::time::Duration;

use kubernetes::clock::boottime;

use super::{
    command::{self, Bounds, Running, Told},
    http::Shown,
    options::Words,
};
use crate::elector::Handle;

/// How long a command that tells of following may take.
const FOLLOW: Duration = Duration::from_secs(30);

/// The commands.
#[derive(Debug, Clone)]
pub struct Hooks {
    /// When this pod begins to lead.
    pub lead: Option<Words>,
    /// When it begins to follow.
    pub follow: Option<Words>,
}

impl Hooks {
    /// Tells for ever.
    pub async fn keep(self, elector: Handle, shown: Shown, mut told: Told, bounds: Bounds) {
        // At the start: as soon as it is known whom to follow.
        let mut now = shown.told();
        while now.stale || (now.name.is_empty() && !now.is_leader) {
            now = shown.news(&now).await;
        }
        if !now.is_leader {
            (told.leader, told.epoch) = (now.name, now.epoch);
            self.follow(&told).await;
        }
        loop {
            let mut lead = elector.lead().await;
            (told.leader, told.epoch) = (told.me.clone(), Some(lead.epoch()));
            if let Some(words) = &self.lead {
                match command::run_while(&mut lead, &words.0, &told, bounds).await {
                    Ok(Some(0) | None) => {}
                    Ok(Some(code)) => {
                        tracing::warn!(command = ?words.0, code, "the command for leading failed");
                    }
                    Err(error) => {
                        tracing::warn!(command = ?words.0, %error, "the command for leading did not start");
                    }
                }
            }
            lead.lost().await;
            told.leader = shown.told().name;
            self.follow(&told).await;
            drop(lead);
        }
    }

    async fn follow(&self, told: &Told) {
        let Some(words) = &self.follow else { return };
        let until = boottime().after(FOLLOW);
        let ran =
            async { Running::start(&words.0, told, until, Duration::from_secs(1)).await?.ended().await };
        match ran.await {
            Ok(0) => {}
            Ok(code) => tracing::warn!(command = ?words.0, code, "the command for following failed"),
            Err(error) => {
                tracing::warn!(command = ?words.0, %error, "the command for following did not start");
            }
        }
    }
}
