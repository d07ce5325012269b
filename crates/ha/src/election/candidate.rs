//! One candidate: everything it remembers, and what follows from it.
//!
//! It must never act beyond its deadline, take a Lease whose holder may still act, or reuse an epoch.

use std::time::Duration;

use super::record::{Answer, Candidacy, Content, Next, Record, Request};
use super::rules::Rules;
use super::times::Times;
use crate::types::Instant;

/// After so many renewals the holder lists only itself: who still stands enters its name again.
const ROLL_CALL: u32 = 60;
/// Better candidates beyond this number are not waited for.
const RANKS: u32 = 5;

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Known {
    Nothing,
    Missing,
    Record {
        record: Record,
        /// When its last renewal, or its release, was first seen.
        since: Instant,
        /// This candidate made it, and by a mutated rule takes it at once.
        vouched: bool,
    },
}

/// A wish to step down that cannot be granted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotInOffice {
    /// This candidate does not lead.
    #[error("this candidate does not lead")]
    NotLeading,
    /// Nobody of that name stands for election.
    #[error("no candidate is called {0:?}")]
    NoSuchCandidate(String),
}

/// What is known of the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen<'a> {
    /// The record.
    pub record: &'a Record,
    /// From when on its holder counts as gone, unless it renews; `None` when nobody holds it.
    pub expires: Option<Instant>,
}

/// One candidate.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Candidate {
    me: String,
    name: String,
    priority: u32,
    announces: bool,
    fresh_is_free: bool,
    times: Times,
    rules: Rules,
    known: Known,
    /// When what is known was surely current.
    confirmed: Option<Instant>,
    /// When it was learnt.
    learnt: Instant,
    must_read: bool,
    next_at: Instant,
    failures: u32,
    acts_until: Option<Instant>,
    /// Of the term that is or was its own.
    epoch: u64,
    renewed_at: Instant,
    renewals: u32,
    /// The highest epoch ever seen.
    highest: u64,
    /// The TTL of the last holder that was seen.
    last_ttl: Duration,
    /// The highest count of renewals ever seen: no stamp comes twice, over deletions neither.
    last_renewal: u64,
    abstains_until: Option<Instant>,
    successor: Option<String>,
}

impl Candidate {
    /// A candidate that has seen nothing. `me` must be unique to this start of the process: two lives of one pod
    /// are two candidates. Its name is the same, its priority 1, and it does not list itself.
    pub fn new(me: impl Into<String>, times: Times) -> Self {
        let me = me.into();
        Self {
            name: me.clone(),
            me,
            priority: 1,
            announces: false,
            fresh_is_free: false,
            times,
            rules: Rules::default(),
            known: Known::Nothing,
            confirmed: None,
            learnt: Instant(0),
            must_read: true,
            next_at: Instant(0),
            failures: 0,
            acts_until: None,
            epoch: 0,
            renewed_at: Instant(0),
            renewals: 0,
            highest: 0,
            last_ttl: Duration::ZERO,
            last_renewal: 0,
            abstains_until: None,
            successor: None,
        }
    }

    /// Lists itself under this name and priority. With priority 0 it only watches: it is not listed and never leads.
    #[must_use]
    pub fn standing(mut self, name: impl Into<String>, priority: u32) -> Self {
        (self.name, self.priority, self.announces) = (name.into(), priority, priority > 0);
        self
    }

    /// Takes a Lease that nobody ever held at once. For whoever makes that Lease together with the candidates and never
    /// again, and whose acts do no harm twice.
    #[must_use]
    pub fn taking_fresh(mut self) -> Self {
        self.fresh_is_free = true;
        self
    }

    /// With some rules switched off, for a simulator.
    #[must_use]
    pub fn with_rules(mut self, rules: Rules) -> Self {
        self.rules = rules;
        self
    }

    /// Who this candidate is.
    pub fn identity(&self) -> &str {
        &self.me
    }

    /// Its times.
    pub fn times(&self) -> &Times {
        &self.times
    }

    /// Until when this candidate may act; `None`: it may not. To be compared with the clock before each act.
    pub fn acts_until(&self) -> Option<Instant> {
        self.acts_until
    }

    /// Whether this candidate may act at `now`.
    pub fn leads(&self, now: Instant) -> bool {
        self.acts_until.is_some_and(|until| now < until || !self.rules.own_deadline)
    }

    /// The epoch under which it acts. Meaningless while it does not.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// What is known of the record; `None` while nothing is, or it is missing.
    pub fn seen(&self) -> Option<Seen<'_>> {
        let Known::Record { record, since, .. } = &self.known else { return None };
        let expires = record.content.holder.as_ref().map(|_| since.after(self.patience(record)));
        Some(Seen { record, expires })
    }

    /// When what is known was surely current; `None`: never.
    pub fn confirmed(&self) -> Option<Instant> {
        self.confirmed
    }

    /// Whether the record, as last seen, names this candidate.
    pub fn holds(&self) -> bool {
        matches!(&self.known, Known::Record { record, .. } if self.is_mine(record))
    }

    /// What to do at `now`. At most one request is under way at a time.
    pub fn next(&self, now: Instant) -> Next {
        if now < self.next_at {
            return Next::Wait(self.next_at);
        }
        if self.must_read {
            return Next::Ask(Request::Read);
        }
        match &self.known {
            Known::Nothing => Next::Ask(Request::Read),
            Known::Missing => self.over_missing(now),
            Known::Record { record, .. } if self.is_mine(record) => self.in_office(record, now),
            Known::Record { record, since, vouched } => self.following(record, *since, *vouched, now),
        }
    }

    /// What was never there and what was deleted look alike, and so does what was there between two reads. So an empty
    /// Lease is made, whose version then proves that nobody took it while it is waited for as a silent holder is.
    fn over_missing(&self, now: Instant) -> Next {
        if self.leads(now) {
            return Next::Ask(Request::Create(Content { epoch: Some(self.epoch), ..self.mine(None) }));
        }
        if self.stands(now) {
            return Next::Ask(Request::Create(Content::default()));
        }
        self.wait(self.abstains_until.filter(|until| *until > now), now)
    }

    fn in_office(&self, record: &Record, now: Instant) -> Next {
        let replace = |content| Next::Ask(Request::Replace { on: record.version.clone(), content });
        if self.abstains(now) || self.priority == 0 {
            return replace(self.released(record));
        }
        if !self.leads(now) {
            let epoch = if self.rules.new_term_new_epoch {
                self.next_epoch(record)
            } else {
                record.content.epoch.unwrap_or(self.epoch)
            };
            return replace(Content { epoch: Some(epoch), ..self.mine(Some(record)) });
        }
        let due = self.renewed_at.after(self.times.renew);
        if now < due {
            return Next::Wait(due);
        }
        replace(Content { epoch: Some(self.epoch), ..self.mine(Some(record)) })
    }

    fn following(&self, record: &Record, since: Instant, vouched: bool, now: Instant) -> Next {
        let content = &record.content;
        let mut due = since.after(self.stagger(record));
        if content.holder.is_some() {
            due = due.after(self.patience(record));
        } else if self.stands_in_for_another(record) {
            if !vouched && !self.fresh_is_free && self.rules.never_held_is_unknown {
                due = due.after(self.times.ttl.max(self.last_ttl));
            }
        } else if content.successor.as_deref().is_some_and(|successor| successor != self.me) {
            due = due.after(self.times.reservation());
        }
        let replace = |content| Next::Ask(Request::Replace { on: record.version.clone(), content });
        if self.leads(now) {
            // The Lease was made anew under its holder: still its own term.
            return replace(Content { epoch: Some(self.epoch), ..self.mine(Some(record)) });
        }
        if self.stands(now) && now >= due {
            return replace(Content { epoch: Some(self.next_epoch(record)), ..self.mine(Some(record)) });
        }
        if self.stands(now)
            && content.holder.is_some()
            && content.candidates.get(&self.me) != self.candidacy().as_ref()
        {
            let mut content = content.clone();
            content.candidates.extend(self.candidacy().map(|candidacy| (self.me.clone(), candidacy)));
            if content != record.content {
                return replace(content);
            }
        }
        self.wait(self.stands(now).then_some(due).max(self.abstains_until.filter(|until| *until > now)), now)
    }

    /// Until something is due, or for as long as a watch may be silent.
    fn wait(&self, due: Option<Instant>, now: Instant) -> Next {
        // Half a TTL, the longer one: its holder missed a renewal, although the record is watched.
        let recorded = self.seen().and_then(|seen| seen.record.content.ttl).unwrap_or_default();
        let stale = self.confirmed.unwrap_or_default().after(self.times.ttl.max(recorded) / 2);
        if now >= stale {
            return Next::Ask(Request::Read);
        }
        Next::Wait(due.map_or(stale, |due| due.min(stale)))
    }

    /// The Lease was never held, or says less than is known: it was made anew or put back.
    fn stands_in_for_another(&self, record: &Record) -> bool {
        record.content.epoch.is_none_or(|epoch| epoch < self.highest)
    }

    fn patience(&self, record: &Record) -> Duration {
        let recorded = record.content.ttl.filter(|_| self.rules.record_ttl);
        recorded.unwrap_or(self.times.ttl)
    }

    /// The better ones first.
    fn stagger(&self, record: &Record) -> Duration {
        let better = record.content.candidates.iter().filter(|(identity, other)| {
            other.priority > self.priority && record.content.holder.as_ref() != Some(identity)
        });
        let ranks = u32::try_from(better.count()).unwrap_or(RANKS).min(RANKS);
        self.times.stagger() * ranks
    }

    fn stands(&self, now: Instant) -> bool {
        self.priority > 0 && !self.abstains(now)
    }

    fn abstains(&self, now: Instant) -> bool {
        self.abstains_until.is_some_and(|until| now < until)
    }

    fn is_mine(&self, record: &Record) -> bool {
        record.content.holder.as_deref() == Some(self.me.as_str())
    }

    fn candidacy(&self) -> Option<Candidacy> {
        self.announces.then(|| Candidacy { name: self.name.clone(), priority: self.priority })
    }

    /// Above everything that this record, this candidate and every deleted Lease of this name ever had.
    fn next_epoch(&self, record: &Record) -> u64 {
        if !self.rules.epoch_grows {
            return record.content.epoch.unwrap_or(1);
        }
        // An epoch is never above the version it was written at, and versions grow over deletions.
        let floor = record.number().filter(|_| self.rules.epoch_from_version);
        let recorded = record.content.epoch.or(floor).unwrap_or(0);
        recorded.max(self.highest).saturating_add(1)
    }

    /// The content with this candidate as its holder; the epoch is the caller's.
    fn mine(&self, record: Option<&Record>) -> Content {
        let before = record.map(|record| &record.content);
        let mut candidates = before.map(|before| before.candidates.clone()).unwrap_or_default();
        let again = before.is_some_and(|before| before.holder.as_ref() == Some(&self.me));
        if again && self.renewals >= ROLL_CALL {
            candidates.clear();
        }
        if let Some(former) = before.and_then(|before| before.holder.as_ref()).filter(|_| !again) {
            candidates.remove(former);
        }
        candidates.extend(self.candidacy().map(|candidacy| (self.me.clone(), candidacy)));
        Content {
            holder: Some(self.me.clone()),
            epoch: None,
            renewal: before.map_or(0, |before| before.renewal).max(self.last_renewal).wrapping_add(1),
            ttl: Some(self.times.ttl),
            successor: None,
            candidates,
        }
    }

    fn released(&self, record: &Record) -> Content {
        let mut content = record.content.clone();
        content.holder = None;
        content.renewal = content.renewal.wrapping_add(1);
        content.successor.clone_from(&self.successor);
        content.candidates.remove(&self.me);
        content
    }

    /// Gives the Lease to `to`, a candidate's name or identity, or to the best one that takes it. The candidate may not act
    /// from this call on, whatever becomes of the request, and does not stand for one TTL.
    ///
    /// # Errors
    /// When it does not lead, or nobody of that name stands.
    pub fn step_down(&mut self, to: Option<&str>, now: Instant) -> Result<Request, NotInOffice> {
        let Known::Record { record, .. } = &self.known else { return Err(NotInOffice::NotLeading) };
        if !self.is_mine(record) || !self.leads(now) {
            return Err(NotInOffice::NotLeading);
        }
        self.successor = self.successor_called(to)?;
        self.release(now).ok_or(NotInOffice::NotLeading)
    }

    /// Whether somebody of that name, or with that identity, stands and is not this one.
    ///
    /// # Errors
    /// When nobody does.
    pub fn successor_called(&self, to: Option<&str>) -> Result<Option<String>, NotInOffice> {
        let Some(to) = to else { return Ok(None) };
        let found = match &self.known {
            Known::Record { record, .. } => record
                .content
                .candidates
                .iter()
                .find(|(identity, other)| **identity != self.me && (other.name == to || *identity == to)),
            _ => None,
        };
        found
            .map(|(identity, _)| Some(identity.clone()))
            .ok_or_else(|| NotInOffice::NoSuchCandidate(to.to_owned()))
    }

    /// The request that gives the Lease back, for a clean exit. The candidate may not act from this call on,
    /// whatever becomes of the request.
    pub fn release(&mut self, now: Instant) -> Option<Request> {
        if self.rules.stop_before_release {
            self.acts_until = None;
        }
        self.abstains_until = Some(now.after(self.times.ttl));
        match &self.known {
            Known::Record { record, .. } if self.is_mine(record) => {
                Some(Request::Replace { on: record.version.clone(), content: self.released(record) })
            }
            _ => None,
        }
    }

    /// The request that takes its name from the list, for a follower's clean exit.
    pub fn withdraw(&self) -> Option<Request> {
        let Known::Record { record, .. } = &self.known else { return None };
        let mut content = record.content.clone();
        content.candidates.remove(&self.me)?;
        (!self.is_mine(record)).then(|| Request::Replace { on: record.version.clone(), content })
    }

    /// A watch showed the record so. Events may come late, but never out of order.
    pub fn observed(&mut self, record: Record, now: Instant) {
        let later = match &self.known {
            Known::Nothing => true,
            // It may be from before the deletion.
            Known::Missing => false,
            Known::Record { record: known, .. } if known.version == record.version => {
                self.confirmed = self.confirmed.max(Some(now));
                return;
            }
            Known::Record { record: known, .. } => match (known.number(), record.number()) {
                (Some(known), Some(new)) if new > known => true,
                (Some(_), Some(_)) => return,
                _ => false,
            },
        };
        if later {
            self.next_at = self.next_at.min(now);
            self.learn(record, now, now, false);
        } else {
            self.must_read = true;
        }
    }

    /// A watch showed that the record is gone, which a read must confirm.
    pub fn vanished(&mut self) {
        if !matches!(self.known, Known::Missing) {
            self.must_read = true;
        }
    }

    /// Takes in what came of `request`, which was sent at `started`.
    pub fn answered(&mut self, request: &Request, started: Instant, answer: Answer, now: Instant) {
        if let Request::Create(content) | Request::Replace { content, .. } = request {
            // Whatever came of it: should it have landed, the next attempt is another renewal, also on a Lease made anew.
            self.last_renewal = self.last_renewal.max(content.renewal);
        }
        match (answer, request) {
            (Answer::Found(record), Request::Read) => {
                let known = match &self.known {
                    Known::Record { record, .. } => record.number(),
                    _ => None,
                };
                // What a watch told meanwhile may be newer. What was known before is not, even with a higher number:
                // somebody put an old state back.
                self.must_read = false;
                if record.number() >= known || self.learnt <= started {
                    self.learn(record, started, now, false);
                }
            }
            (Answer::Missing, Request::Read) => {
                (self.known, self.learnt) = (Known::Missing, now);
                self.confirmed = self.confirmed.max(Some(started));
                (self.must_read, self.failures) = (false, 0);
            }
            (Answer::Written(version), Request::Create(content) | Request::Replace { content, .. }) => {
                let made = matches!(request, Request::Create(_));
                self.wrote(Record { version, content: content.clone() }, started, now, made);
            }
            (Answer::Lost, Request::Replace { content, .. }) => self.lost(content, started, now),
            (Answer::Lost, _) => self.must_read = true,
            (answer, _) => {
                let prolongs =
                    !self.rules.unknown_prolongs_nothing && answer == Answer::Unknown && self.leads(now);
                if prolongs {
                    self.acts_until = Some(started.after(self.times.deadline));
                }
                self.must_read = true;
                self.failures = self.failures.saturating_add(1);
                self.next_at = now.after(self.pause(now));
            }
        }
    }

    fn lost(&mut self, content: &Content, started: Instant, now: Instant) {
        let ours = content.holder.as_deref() == Some(self.me.as_str());
        if ours && !self.rules.conflict_is_no_success {
            (self.acts_until, self.epoch) =
                (Some(started.after(self.times.deadline)), content.epoch.unwrap_or(self.epoch));
        }
        if ours && !self.rules.conflict_is_no_loss {
            self.acts_until = None;
        }
        self.must_read = true;
        if !ours && content.holder.is_some() {
            // Several enter their names at once: not all again at once.
            self.next_at = now.after(self.times.retry);
        }
    }

    /// A holder must be quick; a follower need not ask a silent API server often.
    fn pause(&self, now: Instant) -> Duration {
        if self.leads(now) {
            return self.times.retry;
        }
        (self.times.retry * 2_u32.saturating_pow(self.failures.min(8))).min(self.times.renew)
    }

    fn learn(&mut self, record: Record, confirmed: Instant, now: Instant, made: bool) {
        let mine = self.is_mine(&record);
        let made = made && !self.rules.missing_is_unknown;
        let (since, vouched) = match &self.known {
            // An empty Lease can be made twice: only its version tells the two apart.
            Known::Record { record: known, since, vouched }
                if known.stamp() == record.stamp()
                    && (record.content.holder.is_some() || known.version == record.version) =>
            {
                (*since, made || (*vouched && record.number() >= known.number()))
            }
            Known::Record { record: known, since, .. }
                if !self.rules.timer_from_renewal && known.content.holder == record.content.holder =>
            {
                (*since, made)
            }
            _ => (now, made),
        };
        // An empty Lease in the place of a deleted one proves nothing against the holder of that.
        let anew = self.rules.never_held_is_unknown
            && record.content.holder.is_none()
            && self.leads(now)
            && self.stands_in_for_another(&record);
        if !anew && (!mine || record.content.epoch != Some(self.epoch)) {
            self.acts_until = None;
        }
        self.highest = self.highest.max(record.content.epoch.unwrap_or(0));
        self.last_renewal = self.last_renewal.max(record.content.renewal);
        if let (Some(_), Some(ttl)) = (&record.content.holder, record.content.ttl) {
            self.last_ttl = ttl;
        }
        if !mine && record.content.holder.is_some() {
            self.successor = None;
        }
        (self.must_read, self.failures, self.learnt) = (false, 0, now);
        self.confirmed = self.confirmed.max(Some(confirmed));
        self.known = Known::Record { record, since, vouched };
    }

    fn wrote(&mut self, record: Record, started: Instant, now: Instant, made: bool) {
        let newer = match &self.known {
            Known::Record { record: known, .. } => known.number() > record.number(),
            _ => false,
        };
        if newer {
            // A watch showed already what came after this write.
            self.must_read = true;
            return;
        }
        let mine = self.is_mine(&record);
        let epoch = record.content.epoch.unwrap_or(0);
        // A deadline that passed while this was under way ended the term: what comes now is another one.
        let lapsed = self.rules.new_term_new_epoch && epoch == self.epoch && !self.leads(now);
        let same = epoch == self.epoch;
        if mine && !lapsed {
            let from = if self.rules.from_request { started } else { now };
            self.acts_until = Some(from.after(self.times.deadline));
            self.renewals = if same && self.renewals < ROLL_CALL { self.renewals + 1 } else { 0 };
            (self.epoch, self.renewed_at, self.abstains_until) = (epoch, started, None);
        } else if mine {
            self.acts_until = None;
        }
        self.learn(record, started, now, made);
    }
}

#[cfg(test)]
impl Candidate {
    /// Forgets what changes no decision of the walk, other than that it may read at any time: fewer worlds.
    pub(super) fn forget_times(&mut self) {
        (self.confirmed, self.learnt, self.renewed_at) = (None, Instant(0), Instant(0));
        (self.failures, self.renewals) = (0, 0);
    }
}
