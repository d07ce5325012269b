//! The driver around `decide`: builds the view, carries the decision out, talks to peers and to the API server.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use ha::{
    Announcement, Bootstrap, Decision, Lsn, MemberName, Memory, Names, Peer, Postgres, Primary, Purpose,
    RecordView, Route, Standby, Stopped, Timeline, Version, View, Walsender,
};

use crate::api_server::{Hidden, Request, Response};
use crate::dice::{Dice, MS, SECOND};
use crate::event::Event;
use crate::member::{Agent, Known, Member, State};
use crate::replay;
use crate::world::World;

const HEARTBEAT: u64 = 200 * MS;
const POLL: u64 = SECOND;
const API_TIMEOUT: u64 = 2 * SECOND;

fn lsn(end: usize) -> Lsn {
    Lsn(end as u64)
}

impl World {
    pub(crate) fn agent_start(&mut self, m: usize, pod: u64) {
        let life = self.id();
        let (now, rules) = (self.now, self.rules);
        let Some(running) = self.members.get_mut(m).and_then(|member| member.pod.as_mut()) else { return };
        if running.boot.0 != pod || running.agent.is_some() {
            return;
        }
        running.beat = now;
        // Its first answer from a Postgres that runs comes before or after that of the API server.
        let runs = !matches!(running.state, State::Down);
        let looked = if runs { now + Dice::new(self.seed ^ life).millis(0, 150) } else { now };
        running.agent = Some(Agent {
            life,
            memory: Memory::with_rules(rules),
            known: None,
            keeping: false,
            names_ordered: None,
            hidden: None,
            nudged: 0,
            log: self.logs.then(|| replay::line(&ha::log::Line::Started)),
            peers: BTreeMap::new(),
            route: None,
            pending: None,
            busy: None,
            doing: BTreeSet::new(),
            decision: Decision::default(),
            announced: 0,
            asked: 0,
            looked,
            next_tick: now,
        });
        self.say(|| format!("pg-{m} agent starts"));
        self.later(0, Event::Tick { m, agent: life });
        self.later(looked - now, Event::Tick { m, agent: life });
        // As the driver does: a seal that died half-way left a standby off its stream, whose end nobody has found yet.
        let unmeasured =
            |standby: &crate::member::StandbyState| standby.upstream.is_none() && standby.end.is_none();
        if self.members.get(m).and_then(Member::standby).is_some_and(unmeasured) {
            self.measure(m);
        }
    }

    /// Something changed: look now.
    pub fn nudge(&mut self, m: usize) {
        let at = self.now + MS / 2;
        let Some(pod) = self.members.get_mut(m).and_then(|member| member.pod.as_mut()) else { return };
        let Some(agent) = &mut pod.agent else { return };
        if agent.nudged <= self.now {
            agent.nudged = at;
            let agent = agent.life;
            self.queue.push(at, Event::Tick { m, agent });
        }
    }

    fn view(&self, m: usize) -> Option<View> {
        let member = self.members.get(m)?;
        let pod = member.pod.as_ref()?;
        let agent = pod.agent.as_ref()?;
        let record = match &agent.known {
            _ if agent.hidden == Some(Hidden::Missing) => RecordView::Missing,
            _ if agent.hidden == Some(Hidden::Tampered) => {
                RecordView::Tampered { why: "spec and annotation differ".to_owned() }
            }
            None => RecordView::Unknown { why: "not read yet".to_owned() },
            Some(known) => RecordView::Known {
                record: Box::new(known.record.clone()),
                version: Version(known.version.to_string()),
                lease_uid: "lease".to_owned(),
                confirmed_at: known.confirmed_at,
                changed_at: known.changed_at,
            },
        };
        let route = match &agent.route {
            None => Route::Unknown,
            Some(Some((epoch, boot))) if *boot == pod.boot => Route::Here { epoch: *epoch },
            Some(_) => Route::Elsewhere,
        };
        Some(View {
            member: member.id(),
            pod_uid: format!("uid-{}", pod.boot),
            boot: pod.boot,
            node: format!("node-{}", member.node),
            holds_volume_lock: true,
            terminating: pod.terminating,
            settings: member.settings.clone(),
            record,
            promise: member.promise.clone(),
            postgres: self.postgres_view(member, agent.busy),
            peers: agent.peers.clone(),
            route,
            swapping: agent.pending.is_some(),
        })
    }

    fn postgres_view(&self, member: &Member, busy: Option<&'static str>) -> Postgres {
        if let Some(with) = busy {
            return Postgres::Busy { with: with.to_owned() };
        }
        let Some(pod) = &member.pod else { return Postgres::Absent };
        let Some(data) = &member.data else { return Postgres::Absent };
        if member.pg_frozen > self.now {
            return Postgres::Unknown { why: "no answer".to_owned() };
        }
        if pod.agent.as_ref().is_some_and(|agent| agent.looked > self.now) {
            return Postgres::Unknown { why: "not looked at yet".to_owned() };
        }
        match &pod.state {
            State::Down => Postgres::Stopped(Stopped {
                timeline: Timeline(data.control),
                was_standby: data.was_standby,
                clean: data.clean,
                end: (data.clean && !data.was_standby).then(|| data.wal.position()),
            }),
            State::Starting(_) => Postgres::Starting,
            State::Standby(standby) if standby.promoting.is_some() => Postgres::Starting,
            State::Standby(_) if data.wal.end() < data.consistent_at => Postgres::Starting,
            State::Standby(standby) => Postgres::Standby(Standby {
                timeline: data.wal.timeline(),
                upstream: standby.upstream.clone(),
                streaming: standby.conn.is_some() && standby.upstream.is_some(),
                received: standby.received.map(lsn),
                replayed: Some(lsn(member.replayed(self.now))),
                end: standby.end,
            }),
            State::Primary(primary) => {
                let names = match &primary.next_names {
                    Some(_) if self.world_rules.names_surely_in_force => Names::Unknown,
                    Some(next) => next.clone(),
                    None => primary.names.clone(),
                };
                let walsender = |sender: &crate::member::Sender| Walsender {
                    streaming: true,
                    flushed: sender.flushed.map(lsn),
                };
                Postgres::Primary(Box::new(Primary {
                    timeline: Timeline(primary.timeline),
                    control_timeline: Timeline(data.control),
                    gate: primary.gate,
                    names,
                    flushed: lsn(data.wal.flushed),
                    first_record: lsn(primary.first),
                    fence_xid: primary.fence_xid.or(Some(primary.first as u64)),
                    walsenders: primary.senders.iter().map(|(id, sender)| (*id, walsender(sender))).collect(),
                    prepared: primary.prepared.clone(),
                    provisioned: data.provisioned,
                }))
            }
        }
    }

    pub(crate) fn tick(&mut self, m: usize, life: u64) {
        let now = self.now;
        let Some(member) = self.members.get(m).filter(|member| member.agent_life() == Some(life)) else {
            return;
        };
        let clock = member.clock(now);
        let Some(view) = self.view(m) else { return };
        let Some(agent) = self.members.get_mut(m).and_then(|member| member.agent_mut(life)) else { return };
        let decision = ha::decide(&mut agent.memory, &view, clock);
        let changed = agent.decision.because != decision.because
            || agent.decision.suspects != decision.suspects
            || agent.decision.released != decision.released;
        if let Some(log) = &mut agent.log {
            log.push_str(&replay::line(&ha::log::Line::Decided {
                now: clock,
                view: &view,
                decision: &decision,
            }));
        }
        agent.decision = decision.clone();
        if changed && self.is_watched() {
            self.say(|| format!("pg-{m} {:?}", decision.because));
        }
        for action in decision.actions.clone() {
            self.order(m, life, action);
        }
        // As the driver's upkeep does: an end that nobody has found is looked for again.
        let unmeasured = |standby: &crate::member::StandbyState| {
            standby.upstream.is_none()
                && standby.end.is_none()
                && now.saturating_sub(standby.measured_at) > 2 * SECOND
        };
        if self.members.get(m).and_then(Member::standby).is_some_and(unmeasured) {
            self.measure(m);
        }
        self.tell(m, life, changed, clock, &view);
        self.poll(m, life);
        let Some(member) = self.members.get_mut(m) else { return };
        let wake = decision.wake_at.map(|at| member.world_time(at));
        let Some(agent) = member.agent_mut(life) else { return };
        let planned = agent.next_tick;
        let at = (now + HEARTBEAT).min(wake.unwrap_or(u64::MAX)).max(now + MS);
        if planned <= now || at < planned {
            agent.next_tick = at;
            self.queue.push(at, Event::Tick { m, agent: life });
        }
    }

    /// Announces at a change and every heartbeat.
    fn tell(&mut self, m: usize, life: u64, changed: bool, clock: ha::Instant, view: &View) {
        let now = self.now;
        let Some(agent) = self.members.get_mut(m).and_then(|member| member.agent_mut(life)) else { return };
        if !changed && now.saturating_sub(agent.announced) < HEARTBEAT {
            return;
        }
        agent.announced = now;
        let said = Rc::new(Announcement::compose(view, &agent.decision, &format!("10.0.0.{m}"), clock));
        for to in 0..self.members.len() {
            let link = self.net.link(m, to);
            if to == m || !link.up || self.dice.permille(self.net.loss + link.loss) {
                continue;
            }
            let delay = self.delay(m, to);
            if self.dice.permille(self.net.twice) {
                let again = delay + self.dice.millis(1, 3000);
                self.later(again, Event::Announce { to, said: said.clone() });
            }
            let Some(peer) = self.members.get(to).filter(|peer| peer.name != view.member.name) else {
                continue;
            };
            if peer.ghost && peer.pod.is_none() {
                continue;
            }
            // Nobody listens there, and somebody says so.
            if peer.pod.is_none() && self.net.passes(to, m) && self.dice.permille(700) {
                let peer = peer.name.clone();
                self.later(delay, Event::Refused { m, agent: life, peer });
            } else {
                self.later(delay, Event::Announce { to, said: said.clone() });
            }
        }
    }

    pub(crate) fn refused(&mut self, m: usize, life: u64, name: &MemberName) {
        let Some(agent) = self.members.get_mut(m).and_then(|member| member.agent_mut(life)) else { return };
        if let Some(peer) = agent.peers.get_mut(name)
            && !peer.refused
        {
            peer.refused = true;
            self.nudge(m);
        }
    }

    pub(crate) fn hear(&mut self, to: usize, said: &Announcement) {
        let now = self.now;
        let Some(member) = self.members.get_mut(to) else { return };
        let (clock, me, Some(life)) = (member.clock(now), member.name.clone(), member.agent_life()) else {
            return;
        };
        if me == said.member.name {
            return;
        }
        let Some(boot) = member.pod.as_ref().map(|pod| pod.boot) else { return };
        let Some(agent) = member.agent_mut(life) else { return };
        let known = agent.peers.get(&said.member.name);
        if known.is_some_and(|known| {
            known.announcement.boot == said.boot && known.announcement.sent_at > said.sent_at
        }) {
            return;
        }
        let echoed = said.echoes.get(&me).filter(|echo| echo.boot == boot).map(|echo| echo.sent_at);
        let confirmed_at = known.and_then(|known| known.confirmed_at).max(echoed);
        let news = known.is_none_or(|known| {
            let old = &known.announcement;
            old.suspects != said.suspects
                || old.report != said.report
                || old.sealed_below != said.sealed_below
                || old.released != said.released
                || old.leads != said.leads
                || old.rewind_source != said.rewind_source
                || old.boot != said.boot
        });
        agent.peers.insert(
            said.member.name.clone(),
            Peer { announcement: said.clone(), heard_at: clock, confirmed_at, refused: false },
        );
        if news {
            self.nudge(to);
        }
    }

    pub(crate) fn ask(&mut self, m: usize, life: u64, request: Request) -> u64 {
        let id = self.id();
        let mut delay = self.dice.millis(1, 25);
        if self.dice.permille(self.api.late) {
            delay = self.dice.millis(1000, 6000);
        }
        let sent = self.now;
        let answered = self.net.api.get(m).copied().unwrap_or(false) && !self.api.down;
        if answered {
            if self.dice.permille(self.api.repeats) {
                let again = delay + self.dice.millis(1, 400);
                let request = Box::new(request.clone());
                self.later(again, Event::Request { m, agent: life, id, sent, request });
            }
            self.later(delay, Event::Request { m, agent: life, id, sent, request: Box::new(request) });
        }
        self.later(API_TIMEOUT, Event::Timeout { m, agent: life, id });
        id
    }

    fn poll(&mut self, m: usize, life: u64) {
        let now = self.now;
        let Some(agent) = self.members.get_mut(m).and_then(|member| member.agent_mut(life)) else { return };
        if agent.asked == 0 || now.saturating_sub(agent.asked) >= POLL {
            agent.asked = now;
            self.ask(m, life, Request::Get);
        }
    }

    pub(crate) fn request(&mut self, m: usize, agent: u64, id: u64, sent: u64, request: Request) {
        if self.api.down {
            return;
        }
        if self.dice.permille(self.api.refuses) {
            let delay = self.dice.millis(1, 25);
            self.later(
                delay,
                Event::Response { m, agent, id, sent, response: Box::new(Response::Refused { id }) },
            );
            return;
        }
        let hidden = self.api.hidden;
        let mut late = None;
        let response = match request {
            Request::Get | Request::Swap(_) if hidden.is_some() => {
                Response::Hidden(hidden.unwrap_or(Hidden::Missing))
            }
            Request::Get => Response::State {
                record: self.api.record.clone(),
                version: self.api.version,
                route: self.api.route,
            },
            Request::Swap(swap) => {
                let mut expected = swap.expect.0 == self.api.version.to_string();
                if !self.world_rules.snapshot_version {
                    // A shared "newest version" that another reader has refreshed meanwhile (patroni#3718).
                    let known = self.members.get(m).and_then(|member| {
                        member
                            .pod
                            .as_ref()?
                            .agent
                            .as_ref()
                            .filter(|known| known.life == agent)?
                            .known
                            .as_ref()
                    });
                    expected |= known.is_some_and(|known| known.version == self.api.version);
                }
                if expected || !self.world_rules.compare_and_swap {
                    self.truth_swapped(m, &swap);
                    let old = std::mem::replace(&mut self.api.record, (*swap.record).clone());
                    self.api.backups.push(old);
                    self.api.version += 1;
                    match swap.purpose {
                        Purpose::Win | Purpose::Force => self.at_a_win(m),
                        Purpose::CommitEpoch => self.at_a_commit(m),
                        Purpose::Widen => self.at_a_change(m, true),
                        Purpose::Narrow => self.at_a_change(m, false),
                        Purpose::Renew => late = self.at_a_renewal(m),
                        Purpose::Bootstrap | Purpose::LeadOn | Purpose::Handover => {}
                    }
                    self.spread();
                    Response::Swapped { swap, version: self.api.version }
                } else {
                    Response::Conflict { record: self.api.record.clone(), version: self.api.version }
                }
            }
            Request::Publish { epoch, boot } => {
                let guarded = self.api.route.is_none_or(|(known, _)| known <= epoch);
                if guarded || !self.world_rules.route_guard {
                    self.truth_published(epoch);
                    self.api.route = Some((epoch, boot));
                }
                Response::Route { route: self.api.route }
            }
            Request::Retract { boot } => {
                // Emptied, never forgotten: the epoch goes on guarding it (S5).
                if let Some((epoch, _)) = self.api.route.filter(|(_, known)| *known == boot) {
                    self.api.route = Some((epoch, ha::Boot(0)));
                }
                Response::Route { route: self.api.route }
            }
        };
        let delay = late.unwrap_or(self.dice.millis(1, 25));
        let reached = self.net.api.get(m).copied().unwrap_or(false) && !self.is_deaf(m);
        if reached && !self.dice.permille(self.api.lost_answers) {
            self.later(delay, Event::Response { m, agent, id, sent, response: Box::new(response) });
        }
    }

    /// Watches deliver, soon or late.
    fn spread(&mut self) {
        let record = Rc::new(self.api.record.clone());
        let version = self.api.version;
        for m in 0..self.members.len() {
            let late = self.dice.permille(50 + self.api.lags);
            if late && self.api.lags > 0 && self.dice.permille(500) {
                // A gap: only a later read or a later event shows it.
                continue;
            }
            let most = if self.api.lags > 0 { 20_000 } else { 4_000 };
            let delay = if late { self.dice.millis(500, most) } else { self.dice.millis(2, 60) };
            let Some(agent) = self.members.get(m).and_then(Member::agent_life) else { continue };
            if self.net.api.get(m).copied().unwrap_or(false) {
                self.later(delay, Event::Watch { m, agent, record: record.clone(), version });
            }
        }
    }

    pub(crate) fn watched(&mut self, m: usize, life: u64, record: &ha::Record, version: u64) {
        let now = self.now;
        let Some(member) = self.members.get_mut(m) else { return };
        let clock = member.clock(now);
        let Some(agent) = member.agent_mut(life) else { return };
        match &mut agent.known {
            Some(known) if known.version < version => {
                let confirmed_at = known.confirmed_at;
                *known = Known { record: record.clone(), version, confirmed_at, changed_at: clock };
                self.keep_record(m, record);
                self.nudge(m);
            }
            _ => {}
        }
    }

    /// Every member keeps the newest record that it saw beside its promise (§2).
    fn keep_record(&mut self, m: usize, record: &ha::Record) {
        let now = self.now;
        // A disk that takes its time: written later, if this agent still lives, and what is newest then.
        let stalls = !self.calm && self.dice.permille(60);
        let until = if stalls { self.dice.millis(500, 4_000) } else { 0 };
        let agent = self.members.get_mut(m).and_then(|member| member.pod.as_mut()?.agent.as_mut());
        if let Some(agent) = agent {
            if agent.keeping {
                return;
            }
            agent.keeping = stalls;
            if stalls {
                let life = agent.life;
                self.later(until, Event::Kept { m, agent: life });
                return;
            }
        }
        let Some(member) = self.members.get_mut(m).filter(|member| member.full_until <= now) else { return };
        let (id, boot) = (member.id(), member.pod.as_ref().map(|pod| pod.boot));
        if let Some(boot) = boot {
            member.promise.keep(record, &id, boot);
        }
    }

    /// A slow disk has taken in what was to be kept.
    pub(crate) fn kept(&mut self, m: usize, life: u64) {
        let Some(agent) = self.members.get_mut(m).and_then(|member| member.agent_mut(life)) else { return };
        agent.keeping = false;
        if let Some(known) = agent.known.as_ref().map(|known| known.record.clone()) {
            self.keep_record(m, &known);
        }
    }

    fn learn(&mut self, m: usize, life: u64, record: &ha::Record, version: u64, sent: u64) {
        let now = self.now;
        let Some(member) = self.members.get_mut(m) else { return };
        let (clock, confirmed_at) = (member.clock(now), member.clock(sent));
        let Some(agent) = member.agent_mut(life) else { return };
        let first = agent.known.is_none();
        match &mut agent.known {
            Some(known) if known.version > version => {}
            Some(known) if known.version == version => {
                known.confirmed_at = known.confirmed_at.max(confirmed_at);
            }
            known => {
                *known = Some(Known { record: record.clone(), version, confirmed_at, changed_at: clock });
                self.keep_record(m, record);
                self.nudge(m);
            }
        }
        if first {
            self.at_a_first_look(m);
        }
    }

    pub(crate) fn response(&mut self, m: usize, life: u64, id: u64, sent: u64, response: Response) {
        let Some(agent) = self.members.get_mut(m).and_then(|member| member.agent_mut(life)) else { return };
        match response {
            Response::Hidden(why) => {
                agent.hidden = Some(why);
                if let Some(pending) = agent.pending.take_if(|pending| pending.id == id) {
                    drop(pending);
                }
            }
            Response::Refused { id } => {
                agent.doing.remove("publish");
                if let Some(pending) = agent.pending.as_mut().filter(|pending| pending.id == id) {
                    pending.id = 0;
                    agent.asked = 0;
                }
            }
            Response::State { record, version, route } => {
                agent.hidden = None;
                agent.route = Some(route);
                // Outcome unknown until read again: our very content there is our success.
                let resolved = agent.pending.as_ref().is_some_and(|pending| pending.id == 0);
                if resolved && let Some(pending) = agent.pending.take() {
                    let ours = *pending.swap.record == record && pending.swap.expect.0 != version.to_string();
                    if ours {
                        self.won(m, life, pending.swap, version);
                    }
                }
                self.learn(m, life, &record, version, sent);
            }
            Response::Swapped { swap, version } => {
                if agent.pending.as_ref().is_some_and(|pending| pending.id == id) {
                    agent.pending = None;
                    let record = (*swap.record).clone();
                    self.won(m, life, swap, version);
                    self.learn(m, life, &record, version, sent);
                }
            }
            Response::Conflict { record, version } => {
                // Perhaps our own earlier success: the next read tells (§2).
                if let Some(pending) = agent.pending.as_mut().filter(|pending| pending.id == id) {
                    pending.id = 0;
                    agent.asked = 0;
                }
                self.learn(m, life, &record, version, sent);
            }
            Response::Route { route } => {
                agent.route = Some(route);
                agent.doing.remove("publish");
            }
        }
        self.nudge(m);
    }

    fn won(&mut self, m: usize, life: u64, swap: ha::Swap, version: u64) {
        let bootstrap = swap.purpose == Purpose::Bootstrap;
        if swap.purpose == Purpose::Renew {
            self.at_a_late_answer(m);
        }
        self.say(|| format!("pg-{m} knows that its {:?} was won", swap.purpose));
        let Some(member) = self.members.get_mut(m) else { return };
        if bootstrap {
            member.promise.bootstrap = Bootstrap::Member;
        }
        if let Some(agent) = member.agent_mut(life) {
            let fence = swap.won(Version(version.to_string()));
            if let Some(log) = &mut agent.log {
                log.push_str(&replay::line(&ha::log::Line::Won { fence: &fence }));
            }
            agent.memory.won(fence);
        }
    }

    pub(crate) fn timeout(&mut self, m: usize, life: u64, id: u64) {
        let Some(agent) = self.members.get_mut(m).and_then(|member| member.agent_mut(life)) else { return };
        agent.doing.remove("publish");
        if let Some(pending) = agent.pending.as_mut().filter(|pending| pending.id == id) {
            pending.id = 0;
            agent.asked = 0;
            self.nudge(m);
        }
    }
}
