//! Faults that lie in wait for a rare moment: a step of a promotion, a swap that has just taken effect.
//!
//! Thrown at any time, a fault meets a window of milliseconds in one world of a thousand; one that waits for the window
//! meets it in most. It must never do what chance could not do: each is a death, a cut, or an answer that is lost or
//! late, in the order in which they could come. Which rules are only missed in such windows stands in `mutation.rs`.

use std::rc::Rc;

use ha::DurabilityMode;

use crate::dice::Dice;
use crate::event::Event;
use crate::faults::Heal;
use crate::member::Member;
use crate::world::World;

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Moment {
    /// A promotion has made one of its steps: files planted, Postgres told, the signal file gone, out of recovery.
    Step,
    /// A won election has taken effect, and the winner was not answered yet.
    Won,
    /// The same, of whatever election: its winner dies.
    Elected,
    /// An epoch was committed.
    Committed,
    /// A renewed lease, whose holder will crash.
    Renewed,
    /// A renewed lease, whose holder will hear of it late.
    Prolonged,
    /// A renewed lease, whose holder's agent will die before the next renewal.
    Forgotten,
    /// An electorate was widened.
    Widened,
    /// An electorate was widened because of a wish that is taken back.
    Turned,
    /// An electorate was narrowed, while its leader's disk had not taken in that it was widened.
    Narrowed,
}

/// How often it strikes, and the dice that it throws for it: its own, as every fault's.
#[derive(Debug)]
pub(crate) struct Ambush {
    left: u64,
    dice: Dice,
}

/// What comes later in a fault of several parts.
#[derive(Debug, Clone, Copy)]
pub enum Blow {
    /// The agent is killed, and finds the API server out of reach when it starts again.
    Agent(usize),
    /// The API server is up again, and this member's agent asks it at once.
    ApiBack(usize),
    /// The agent is killed, sometimes Postgres too, and the record is the last that it reads for a while.
    Forgets(usize),
    /// The recorded leader dies.
    Leader,
    /// Two are left, the others have no power, and a human asks for the first of the two.
    TwoLeft(usize, usize),
}

impl World {
    fn lie_in_wait(&mut self, moment: Moment, times: u64) {
        self.say(|| format!("FAULT something lies in wait for {moment:?}, {times} times"));
        let dice = Dice::new(self.dice.number());
        self.ambushes.insert(moment, Ambush { left: times, dice });
    }

    /// Steps of promotions are cut short.
    pub(super) fn await_promotion(&mut self) {
        let times = self.dice.between(2, 5);
        self.lie_in_wait(Moment::Step, times);
        self.fell_the_leader();
    }

    /// Winners learn late that they have won, though they see it in the record.
    pub(super) fn await_win(&mut self) {
        self.lie_in_wait(Moment::Won, 1);
        self.fell_the_leader();
    }

    /// So that somebody else is elected.
    fn fell_the_leader(&mut self) {
        let Some(leader) = self.leader().filter(|leader| *leader < self.real()) else { return };
        match self.dice.between(0, 3) {
            0 => self.kill_postgres(leader),
            1 => self.restart_pod(leader, true),
            2 => self.cut_off(leader, 0, 12_000),
            _ => {}
        }
    }

    /// The holder of a lease crashes while its renewal is under way.
    pub(super) fn await_renewal(&mut self) {
        self.lie_in_wait(Moment::Renewed, 1);
    }

    /// The holder of a lease hears late that it has renewed it, and is cut off then.
    pub(super) fn await_prolonging(&mut self) {
        self.lie_in_wait(Moment::Prolonged, 1);
    }

    /// The holder of a lease forgets when it renewed it, reads the record, and is cut off then.
    pub(super) fn await_forgetting(&mut self) {
        if self.settings.mode == DurabilityMode::Async {
            self.lie_in_wait(Moment::Forgotten, 1);
        }
    }

    /// A standby sees nothing of a lease that goes on being renewed; once it has sealed itself it is the leader's turn.
    pub(super) fn await_a_blind_seal(&mut self) {
        let blind = self.any();
        let Some(leader) = self.leader().filter(|leader| *leader != blind) else { return };
        if self.settings.mode == DurabilityMode::Quorum || self.blind.is_some() {
            return;
        }
        self.say(|| format!("FAULT pg-{blind}: sees neither pg-{leader} nor the record"));
        self.blind = Some(blind);
        self.lose_api(blind);
        for (from, to) in [(blind, leader), (leader, blind)] {
            if let Some(link) = self.net.link_mut(from, to) {
                link.up = false;
            }
        }
    }

    /// A leader's disk has not taken in the newest record when its agent dies.
    pub(super) fn await_change(&mut self) {
        let times = self.dice.between(1, 3);
        self.lie_in_wait(Moment::Widened, times);
    }

    /// Somebody wants another number of acknowledgements, and thinks better of it before the names are set.
    pub(super) fn await_turn(&mut self) {
        if self.real() > 2 {
            self.lie_in_wait(Moment::Turned, 1);
            self.other_acks();
            self.spread_wishes();
        }
    }

    fn other_acks(&mut self) {
        self.settings.acks = if self.settings.acks == 1 { 2 } else { 1 };
        self.say(|| format!("FAULT other wishes: acks {}", self.settings.acks));
    }

    /// A leader dies while one of its standbys is behind, and so does its successor.
    pub(super) fn leave_a_laggard(&mut self) {
        let (less, moment) = (self.any(), self.dice.permille(500));
        let Some(leader) = self.leader().filter(|leader| *leader != less) else { return };
        let when = self.slow_down(leader, less);
        self.lie_in_wait(if moment { Moment::Elected } else { Moment::Committed }, 1);
        self.later(when, Event::Struck { blow: Blow::Leader });
    }

    /// One standby falls behind; when the next part is due.
    fn slow_down(&mut self, leader: usize, less: usize) -> u64 {
        let slow = self.dice.between(300, 2_000);
        self.say(|| format!("FAULT pg-{leader} to pg-{less}: {slow} ms slower"));
        if let Some(link) = self.net.link_mut(leader, less) {
            link.delay = slow;
        }
        self.dice.millis(100, 1_500)
    }

    /// All but two are gone, one of the two holds less, and a human asks for the other, who dies when it has won.
    pub(super) fn leave_two(&mut self) {
        let (left, less) = (self.any(), self.any());
        let Some(leader) = self.leader().filter(|leader| *leader != left && *leader != less) else { return };
        let all_there = (0..self.real()).all(|m| {
            let member = self.members.get(m);
            m == leader || member.and_then(Member::standby).is_some_and(|standby| standby.conn.is_some())
        });
        if left == less || self.real() < 4 || !all_there {
            return;
        }
        let when = self.slow_down(leader, less);
        self.lie_in_wait(Moment::Elected, 1);
        self.later(when, Event::Struck { blow: Blow::TwoLeft(left, less) });
    }

    /// Whether something waited for this moment. What it does then is thrown with its own dice: the world's come back
    /// with [`World::let_go`].
    fn springs(&mut self, moment: Moment, permille: u64) -> bool {
        if self.calm {
            return false;
        }
        let Some(ambush) = self.ambushes.get_mut(&moment).filter(|ambush| ambush.left > 0) else {
            return false;
        };
        if !ambush.dice.permille(permille) {
            return false;
        }
        ambush.left -= 1;
        std::mem::swap(&mut self.dice, &mut ambush.dice);
        true
    }

    fn let_go(&mut self, moment: Moment) {
        if let Some(ambush) = self.ambushes.get_mut(&moment) {
            std::mem::swap(&mut self.dice, &mut ambush.dice);
        }
    }

    /// A promotion of this member has made a step.
    pub(crate) fn at_a_step(&mut self, m: usize) {
        if !self.springs(Moment::Step, 400) {
            return;
        }
        match self.dice.between(0, 4) {
            0 => self.kill_agent(m),
            1 => self.kill_postgres(m),
            2 => self.restart_pod(m, false),
            3 => self.restart_pod(m, true),
            _ => self.cut_off(m, 0, 12_000),
        }
        self.let_go(Moment::Step);
    }

    /// Nothing reaches this member, and nothing comes from it, from then on for so long at most (milliseconds).
    fn cut_off(&mut self, m: usize, from: u64, most: u64) {
        let until = from + self.dice.millis(1_500, most);
        self.later(from, Event::Cut { m });
        self.later(until, Event::Heal(Heal::Cut(m)));
        self.cut_api_after(m, from, until);
    }

    fn cut_api_after(&mut self, m: usize, from: u64, until: u64) {
        self.later(from, Event::CutApi { m });
        self.later(until, Event::Heal(Heal::ApiLink(m)));
    }

    /// A leader's power is cut, for long.
    fn dies(&mut self, m: usize) {
        self.say(|| format!("FAULT pg-{m}: power cut"));
        let delay = self.dice.millis(12_000, 25_000);
        self.kill_pod(m, true);
        self.later(delay, Event::PodStart { m });
    }

    /// This leader has committed its epoch.
    pub(crate) fn at_a_commit(&mut self, m: usize) {
        if self.springs(Moment::Committed, 800) {
            self.dies(m);
            self.let_go(Moment::Committed);
        }
    }

    /// An election that this member has won took effect; by seals, or by force.
    pub(crate) fn at_a_win(&mut self, m: usize) {
        if self.springs(Moment::Elected, 900) {
            self.dies(m);
            self.let_go(Moment::Elected);
        } else if self.springs(Moment::Won, 800) {
            // It gives up waiting for the answer after two seconds, and asks.
            let back = self.dice.millis(1_980, 2_150);
            self.say(|| format!("FAULT pg-{m}: its questions to the API server are not answered"));
            self.api.deaf.insert(m, self.now + back);
            self.later(back, Event::Struck { blow: Blow::ApiBack(m) });
            self.let_go(Moment::Won);
        }
    }

    /// A lease that this member holds was renewed: how late the answer is, when it is late.
    pub(crate) fn at_a_renewal(&mut self, m: usize) -> Option<u64> {
        if self.springs(Moment::Renewed, 800) {
            self.say(|| format!("FAULT pg-{m}: Postgres is killed, the answer to its renewal is late"));
            self.kill_postgres(m);
            let late = self.dice.millis(100, 1_500);
            self.later(0, Event::CutApi { m });
            let from = self.dice.millis(60, 400);
            self.cut_off(m, from, 15_000);
            self.let_go(Moment::Renewed);
            return Some(late);
        }
        if self.springs(Moment::Prolonged, 800) {
            let deaf = self.dice.millis(5_000, 8_000);
            self.say(|| {
                format!("FAULT pg-{m}: hears late that it has renewed its lease, and is cut off then")
            });
            self.api.deaf.insert(m, self.now + deaf);
            self.lose_api(m);
            self.later(deaf, Event::Heal(Heal::ApiLink(m)));
            self.let_go(Moment::Prolonged);
        }
        if self.springs(Moment::Forgotten, 800) {
            let when = self.dice.millis(3_000, 4_900);
            self.later(when, Event::Struck { blow: Blow::Forgets(m) });
            self.let_go(Moment::Forgotten);
        }
        None
    }

    /// A member hears of a renewal. When that is late, it is the last that it hears for a while.
    pub(crate) fn at_a_late_answer(&mut self, m: usize) {
        if self.api.deaf.remove(&m).is_some() && !self.calm {
            self.cut_off_for_long(m);
        }
    }

    /// An agent has read the record for the first time in its life.
    pub(crate) fn at_a_first_look(&mut self, m: usize) {
        if self.forgetful == Some(m) && !self.calm {
            self.forgetful = None;
            self.cut_off_for_long(m);
        }
    }

    /// Above the time that a lease lasts, for whoever waits for its end.
    fn cut_off_for_long(&mut self, m: usize) {
        let until = self.dice.millis(16_000, 24_000);
        self.say(|| format!("FAULT pg-{m}: cut off"));
        self.net.isolate(m, false);
        self.lose_api(m);
        self.later(until, Event::Heal(Heal::Cut(m)));
        self.later(until, Event::Heal(Heal::ApiLink(m)));
    }

    /// This leader has widened an electorate, or narrowed one.
    pub(crate) fn at_a_change(&mut self, m: usize, widened: bool) {
        if widened && self.springs(Moment::Turned, 1000) {
            self.slow_names.insert(m);
            self.other_acks();
            let soon = self.dice.millis(5, 250);
            self.later(soon, Event::Wishes { m, settings: Rc::new(self.settings.clone()) });
            self.spread_wishes();
            self.let_go(Moment::Turned);
            return;
        }
        let moment = if widened { Moment::Widened } else { Moment::Narrowed };
        if !self.springs(moment, 800) {
            return;
        }
        if widened {
            let stalls = self.dice.millis(2_000, 5_000);
            self.say(|| format!("FAULT pg-{m}: what it keeps of the record is written late"));
            let agent = self.members.get_mut(m).and_then(|member| member.pod.as_mut()?.agent.as_mut());
            if let Some(agent) = agent.filter(|agent| !agent.keeping) {
                agent.keeping = true;
                let life = agent.life;
                self.later(stalls, Event::Kept { m, agent: life });
                let dice = Dice::new(self.dice.number());
                self.ambushes.insert(Moment::Narrowed, Ambush { left: 1, dice });
            }
        } else {
            let when = self.dice.millis(1, 400);
            self.later(when, Event::Struck { blow: Blow::Agent(m) });
        }
        self.let_go(moment);
    }

    /// A later part of a fault.
    pub(crate) fn struck(&mut self, blow: Blow) {
        if self.calm {
            return;
        }
        match blow {
            Blow::Agent(m) => {
                self.kill_agent(m);
                self.cut_api(m);
            }
            Blow::ApiBack(m) => {
                self.api.down = false;
                self.api.deaf.remove(&m);
                let agent = self.members.get_mut(m).and_then(|member| member.pod.as_mut()?.agent.as_mut());
                if let Some(agent) = agent {
                    agent.asked = 0;
                }
                self.nudge(m);
            }
            Blow::Forgets(m) => {
                // Soon enough for PID 1 to leave Postgres alone; or that is gone, too.
                let (delay, gone) = (self.dice.millis(1_000, 1_900), self.dice.permille(500));
                self.forgetful = Some(m);
                self.kill_agent_for(m, delay);
                if gone {
                    self.kill_postgres(m);
                }
            }
            Blow::Leader => {
                if let Some(leader) = self.leader().filter(|leader| *leader < self.real()) {
                    self.dies(leader);
                }
            }
            Blow::TwoLeft(left, less) => {
                self.say(|| format!("FAULT only pg-{left} and pg-{less} are left"));
                for m in (0..self.real()).filter(|m| *m != left && *m != less) {
                    let until = self.dice.millis(25_000, 40_000);
                    self.kill_pod(m, true);
                    self.later(until, Event::PodStart { m });
                }
                let looks = self.dice.millis(100, 2_000);
                self.later(looks, Event::Asked { m: left });
            }
        }
    }

    /// A member whose win was not answered seals itself again: the API server is down until it has given up waiting, so
    /// that nobody else wins before.
    pub(crate) fn at_a_seal(&mut self, m: usize) {
        if self.blind == Some(m) && !self.calm {
            self.blind = None;
            if let Some(up) = self.net.api.get_mut(m) {
                *up = true;
            }
            if let Some(leader) = self.leader().filter(|leader| *leader != m) {
                self.cut_off(leader, 0, 15_000);
            }
            return;
        }
        let quorum = self.settings.mode == DurabilityMode::Quorum;
        if quorum && self.is_deaf(m) && !self.api.down {
            self.say(|| "FAULT the API server is down".to_owned());
            self.api.down = true;
        }
    }

    /// Whether answers to this member are lost at present.
    pub(crate) fn is_deaf(&self, m: usize) -> bool {
        self.api.deaf.get(&m).is_some_and(|until| *until > self.now)
    }

    /// This member cannot reach the API server.
    pub(crate) fn lose_api(&mut self, m: usize) {
        self.say(|| format!("FAULT pg-{m}: cut off from the API server"));
        if let Some(up) = self.net.api.get_mut(m) {
            *up = false;
        }
    }
}
