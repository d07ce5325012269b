//! What one member knows, in few bytes, and the view and the memory that `decide` is given for it.
//!
//! The real memory is rebuilt for each decision, so that it need not be part of the state: a few decisions long ago
//! on what was true then, whose acts are thrown away, leave the agent with old observations, and the decision that
//! counts is made an hour later. So every wait has passed: suspicion, ranks, grace, `shrinkAfter`. What a memory holds
//! besides observations is part of the state: the token, the reports that somebody may remember, that the log was
//! found diverged, where the names came in force.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use ha::{
    Action, Announcement, Bootstrap, Decision, Gate, Instant, Memory, Names, Peer, Position, Postgres,
    Promise, Purpose, RecordView, Route, Rules, SealReport, Settings, Standby, Stopped, Swap, Version, View,
    Walsender,
};

use crate::record::{Quorum, Record, epoch, lsn, node, pod_uid, small, timeline};
use crate::state::{Report, Token, Upstream};
use crate::who::{Each, Who};

/// A Postgres as its agent sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Seen {
    /// Not running.
    Down {
        /// The control file's timeline.
        control: u8,
        /// In recovery when it ran last.
        was_standby: bool,
        /// Stopped cleanly.
        clean: bool,
    },
    /// Starting or being promoted.
    Starting,
    /// In recovery.
    Standby {
        /// Whom it streams from, or tries to.
        upstream: Option<Upstream>,
        /// It does.
        streaming: bool,
    },
    /// Out of recovery.
    Primary {
        /// The end of this start's first record.
        first: u8,
        /// Names surely in force.
        names: Option<Quorum>,
        /// The end of the log when they came in force.
        since: u8,
        /// The gate.
        open: bool,
        /// What has been replied by whom.
        senders: Each<Option<u8>>,
    },
}

/// What a member knows by itself.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Own {
    /// Who it is.
    pub who: Who,
    /// Its life.
    pub boot: u8,
    /// Its promise.
    pub sealed: u8,
    /// Its promise.
    pub last_epoch: u8,
    /// Its promise.
    pub last_timeline: u8,
    /// Its promise.
    pub rewinding: bool,
    /// The timeline of the last record of its log.
    pub timeline: u8,
    /// The end of its log.
    pub end: u8,
    /// Its Postgres.
    pub seen: Seen,
    /// The record that it has read.
    pub known: Option<Arc<Record>>,
    /// The record beside its promise, when it is all there is.
    pub last: Option<Arc<Record>>,
    /// A swap's outcome is awaited.
    pub swapping: bool,
    /// A proof.
    pub token: Option<Token>,
    /// Stopped to be rewound to the leader of this epoch.
    pub to_rewind: Option<u8>,
}

/// What a peer's announcement says, as far as a decision goes by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Said {
    boot: u8,
    record_epoch: u8,
    leads: Option<u8>,
    timeline: Option<u8>,
    sealed: u8,
    /// Its seal report.
    pub report: Option<Report>,
    suspects: Option<u8>,
    released: bool,
    streams_from: Option<Who>,
    flushed: Option<u8>,
    rewind_source: bool,
}

/// What a member goes by of a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Heard {
    /// Nothing: lost, or long ago.
    #[default]
    Nothing,
    /// What it says now.
    Now(Said),
    /// Only a report that it gave once.
    Report(Report),
}

/// All that a decision depends on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Local {
    /// The member itself.
    pub own: Own,
    /// The others.
    pub heard: Each<Heard>,
}

const HOUR: Duration = Duration::from_secs(3600);

/// The instants of the rebuilt memory: the names' first and second sight, everything else's, and the decision's.
fn at(hour: u32) -> Instant {
    Instant(0).after(HOUR * hour)
}

fn version() -> Version {
    Version("1".to_owned())
}

impl Local {
    /// The decision that counts.
    pub fn decide(&self, rules: Rules, settings: &Settings) -> Decision {
        let mut memory = self.memory(rules, settings);
        self.inject_token(&mut memory);
        ha::decide(&mut memory, &self.view(settings, at(4), self.peers(at(4), false)), at(4))
    }

    fn memory(&self, rules: Rules, settings: &Settings) -> Memory {
        let mut memory = Memory::with_rules(rules);
        if let Some((view, now)) = self.found_diverged(settings) {
            let _ = ha::decide(&mut memory, &view, now);
        }
        if let Seen::Primary { since, .. } = self.own.seen {
            for hour in [1, 2] {
                let mut view = self.view(settings, at(hour), BTreeMap::new());
                if let Postgres::Primary(primary) = &mut view.postgres {
                    primary.flushed = lsn(since);
                }
                let _ = ha::decide(&mut memory, &view, at(hour));
            }
        }
        let before = self.view(settings, at(3), self.peers(at(3), true));
        let _ = ha::decide(&mut memory, &before, at(3));
        memory
    }

    /// What this member announces: right after a decision without any wait when it leads, else after it has heard
    /// nobody for long, so that it suspects whomever it may.
    pub fn said(own: Own, rules: Rules, settings: &Settings) -> Said {
        let leads = matches!(own.seen, Seen::Primary { .. });
        let local = Self { own, heard: Each::default() };
        let mut memory = local.memory(rules, settings);
        let now = if leads { at(3) } else { at(4) };
        let view = local.view(settings, now, BTreeMap::new());
        let decision = ha::decide(&mut memory, &view, now);
        let said = Announcement::compose(&view, &decision, "", now);
        let report = said.report.as_ref().map(|report| Report {
            below: small(report.sealed_below.0),
            timeline: small(report.position.timeline.0),
            end: small(report.position.lsn.0),
            boot: small(said.boot.0),
            released: said.released.then(|| small(said.record_epoch.0)),
        });
        Said {
            boot: small(said.boot.0),
            record_epoch: small(said.record_epoch.0),
            leads: said.leads.map(|epoch| small(epoch.0)),
            timeline: said.timeline.map(|timeline| small(timeline.0)),
            sealed: small(said.sealed_below.0),
            report,
            suspects: said.suspects.map(|epoch| small(epoch.0)),
            released: said.released,
            streams_from: said.streams_from.and_then(|id| Who::of(id.incarnation)),
            flushed: said.flushed.map(|at| small(at.0)),
            rewind_source: said.rewind_source,
        }
    }

    fn inject_token(&self, memory: &mut Memory) {
        let (Some(token), Some(known)) = (self.own.token, &self.own.known) else { return };
        let mut record = known.real();
        record.epoch = epoch(token.epoch);
        record.timeline = timeline(token.timeline);
        let swap = Swap { expect: version(), record: Box::new(record), purpose: Purpose::Win };
        memory.won(swap.won(version()));
    }

    /// The agent remembers across the stop that its log was found diverged: it saw this.
    fn found_diverged(&self, settings: &Settings) -> Option<(View, Instant)> {
        let known = self.own.known.as_ref()?;
        if self.own.to_rewind != Some(known.epoch) {
            return None;
        }
        let mut local = self.clone();
        local.own.seen = Seen::Standby { upstream: None, streaming: false };
        let leader = Said {
            boot: known.boot,
            record_epoch: known.epoch,
            leads: Some(known.epoch),
            timeline: Some(known.timeline),
            sealed: 0,
            report: None,
            suspects: None,
            released: false,
            streams_from: None,
            flushed: None,
            rewind_source: true,
        };
        local.heard = Each::default();
        *local.heard.of_mut(known.leader) = Heard::Now(leader);
        Some((local.view(settings, at(2), local.peers(at(2), false)), at(2)))
    }

    /// What was heard, at this instant; in the past also what is only remembered.
    fn peers(&self, heard_at: Instant, past: bool) -> BTreeMap<ha::MemberName, Peer> {
        let mut peers = BTreeMap::new();
        for who in Who::ALL {
            let announcement = match self.heard.of(who) {
                Heard::Now(said) => said.announcement(who),
                Heard::Report(report) if past => {
                    let said = Said {
                        boot: report.boot,
                        record_epoch: report.released.unwrap_or(0),
                        leads: None,
                        timeline: None,
                        sealed: report.below,
                        report: Some(*report),
                        suspects: None,
                        released: report.released.is_some(),
                        streams_from: None,
                        flushed: None,
                        rewind_source: false,
                    };
                    said.announcement(who)
                }
                _ => continue,
            };
            let peer = Peer { announcement, heard_at, confirmed_at: Some(heard_at), refused: false };
            peers.insert(who.name(), peer);
        }
        peers
    }

    fn view(&self, settings: &Settings, now: Instant, peers: BTreeMap<ha::MemberName, Peer>) -> View {
        let own = &self.own;
        let record = match &own.known {
            None => RecordView::Unknown { why: "not read yet".to_owned() },
            Some(known) => RecordView::Known {
                record: Box::new(known.real()),
                version: version(),
                lease_uid: "lease".to_owned(),
                confirmed_at: now,
                changed_at: at(1),
            },
        };
        let known = own.known.as_ref().or(own.last.as_ref());
        View {
            member: own.who.id(),
            pod_uid: pod_uid(own.who, own.boot),
            boot: ha::Boot(u64::from(own.boot)),
            node: node(own.who),
            holds_volume_lock: true,
            terminating: false,
            settings: settings.clone(),
            record,
            promise: own.promise(),
            postgres: own.postgres(),
            peers,
            route: Route::Here { epoch: epoch(known.map_or(0, |record| record.epoch)) },
            swapping: own.swapping,
        }
    }
}

impl Own {
    fn promise(&self) -> Promise {
        let mut promise = Promise::new(self.who.incarnation(), "cluster");
        promise.sealed_below = epoch(self.sealed);
        promise.last_epoch = epoch(self.last_epoch);
        promise.last_timeline = timeline(self.last_timeline);
        promise.system_identifier = Some(1);
        promise.bootstrap = Bootstrap::Member;
        promise.rewinding = self.rewinding;
        promise.last_record = self.last.as_ref().map(|record| record.real());
        promise
    }

    fn position(&self) -> Position {
        Position { timeline: timeline(self.timeline), lsn: lsn(self.end) }
    }

    fn postgres(&self) -> Postgres {
        match &self.seen {
            Seen::Down { control, was_standby, clean } => Postgres::Stopped(Stopped {
                timeline: timeline(*control),
                was_standby: *was_standby,
                clean: *clean,
                end: (*clean && !*was_standby).then(|| self.position()),
            }),
            Seen::Starting => Postgres::Starting,
            Seen::Standby { upstream, streaming } => Postgres::Standby(Standby {
                timeline: timeline(self.timeline),
                upstream: upstream.map(Upstream::real),
                streaming: *streaming,
                received: streaming.then(|| lsn(self.end)),
                replayed: Some(lsn(self.end)),
                end: upstream.is_none().then(|| self.position()),
            }),
            Seen::Primary { first, names, since: _, open, senders } => {
                let walsenders = Who::ALL
                    .into_iter()
                    .filter_map(|who| Some((who.incarnation(), (*senders.of(who))?)))
                    .map(|(id, at)| (id, Walsender { streaming: true, flushed: Some(lsn(at)) }))
                    .collect();
                Postgres::Primary(Box::new(ha::Primary {
                    timeline: timeline(self.timeline),
                    control_timeline: timeline(self.timeline),
                    gate: if *open { Gate::Open } else { Gate::Closed },
                    names: names.map_or(Names::Unknown, Quorum::names),
                    flushed: lsn(self.end),
                    first_record: lsn(*first),
                    fence_xid: Some(1),
                    walsenders,
                    prepared: Who::ALL.into_iter().map(Who::incarnation).collect::<BTreeSet<_>>(),
                    provisioned: true,
                }))
            }
        }
    }
}

impl Upstream {
    /// As the real one.
    pub fn real(self) -> ha::Upstream {
        ha::Upstream {
            member: self.member.id(),
            boot: ha::Boot(u64::from(self.boot)),
            address: String::new(),
            epoch: epoch(self.epoch),
        }
    }

    /// From the real one.
    pub fn of(real: &ha::Upstream) -> Option<Self> {
        let member = Who::of(real.member.incarnation)?;
        Some(Self { member, boot: small(real.boot.0), epoch: small(real.epoch.0) })
    }
}

impl Said {
    fn announcement(&self, who: Who) -> Announcement {
        // Made by the real code from an empty member, so that what the model leaves out has its usual value.
        let nobody = Own {
            who,
            boot: self.boot,
            sealed: 0,
            last_epoch: 0,
            last_timeline: 0,
            rewinding: false,
            timeline: 0,
            end: 0,
            seen: Seen::Starting,
            known: None,
            last: None,
            swapping: false,
            token: None,
            to_rewind: None,
        };
        let local = Local { own: nobody, heard: Each::default() };
        let settings = Settings::new([]);
        let view = local.view(&settings, at(4), BTreeMap::new());
        let mut said = Announcement::compose(&view, &Decision::default(), "", at(4));
        said.record_epoch = epoch(self.record_epoch);
        said.condition = ha::Condition::Standby;
        said.leads = self.leads.map(epoch);
        said.timeline = self.timeline.map(timeline);
        said.sealed_below = epoch(self.sealed);
        said.report = self.report.map(|report| SealReport {
            sealed_below: epoch(report.below),
            position: Position { timeline: timeline(report.timeline), lsn: lsn(report.end) },
        });
        said.suspects = self.suspects.map(epoch);
        said.released = self.released;
        said.streams_from = self.streams_from.map(Who::id);
        said.flushed = self.flushed.map(lsn);
        said.rewind_source = self.rewind_source;
        said
    }
}

/// One act of a decision, in few bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Act {
    /// Seal below this epoch.
    Seal(u8),
    /// Try this record.
    Swap(Arc<Record>, Why),
    /// Promote under this epoch.
    Promote {
        /// Of the token.
        epoch: u8,
        /// To be chosen.
        timeline: u8,
        /// To be set before.
        names: Quorum,
    },
    /// Start as master under this epoch.
    StartPrimary {
        /// Of the token.
        epoch: u8,
        /// To be set before.
        names: Quorum,
    },
    /// Start in recovery.
    StartStandby,
    /// Stream from this leader.
    Follow(Upstream),
    /// Stop, cleanly or not.
    Stop {
        /// Cleanly.
        fast: bool,
    },
    /// Rewind to this leader.
    Rewind(Upstream),
    /// Rebuild from this leader.
    Reclone(Upstream),
    /// Put these names in force.
    SetNames(Quorum),
    /// Admit clients.
    OpenGate,
}

/// A swap's purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Why {
    /// Won.
    Win,
    /// Led on.
    LeadOn,
    /// The epoch is committed.
    CommitEpoch,
    /// Widened.
    Widen,
    /// Narrowed.
    Narrow,
    /// Anything else.
    Other,
}

impl Act {
    /// From the real one; nothing for what has no effect in the model.
    pub fn of(action: &Action) -> Option<Self> {
        Some(match action {
            Action::Seal { below } => Self::Seal(small(below.0)),
            Action::Swap(swap) => {
                let why = match swap.purpose {
                    Purpose::Win => Why::Win,
                    Purpose::LeadOn => Why::LeadOn,
                    Purpose::CommitEpoch => Why::CommitEpoch,
                    Purpose::Widen => Why::Widen,
                    Purpose::Narrow => Why::Narrow,
                    _ => Why::Other,
                };
                Self::Swap(Record::of(&swap.record)?, why)
            }
            Action::Promote { fence, timeline, names } => Self::Promote {
                epoch: small(fence.epoch().0),
                timeline: small(timeline.0),
                names: Quorum::of(names),
            },
            Action::StartPrimary { fence, names } => {
                Self::StartPrimary { epoch: small(fence.epoch().0), names: Quorum::of(names) }
            }
            Action::StartStandby => Self::StartStandby,
            Action::Follow { upstream } => Self::Follow(Upstream::of(upstream)?),
            Action::Stop { mode } => Self::Stop { fast: *mode == ha::StopMode::Fast },
            Action::Rewind { from } => Self::Rewind(Upstream::of(from)?),
            Action::Reclone { from } => Self::Reclone(Upstream::of(from)?),
            Action::SetNames { names } => Self::SetNames(Quorum::of(names)),
            Action::OpenGate => Self::OpenGate,
            _ => return None,
        })
    }
}
