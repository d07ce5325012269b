//! What people do to the record, the route and the election, and what they mend.

use crate::api_server::Hidden;
use crate::dice::SECOND;
use crate::event::Event;
use crate::faults::Heal;
use crate::world::World;

impl World {
    /// Somebody deletes or edits the record; a human mends it.
    pub(super) fn meddle(&mut self) {
        if self.api.record.leader.is_none() {
            return;
        }
        let why = if self.dice.permille(500) { Hidden::Missing } else { Hidden::Tampered };
        self.say(|| format!("FAULT the record: {why:?}"));
        self.api.hidden = Some(why);
        let until = self.dice.millis(1_000, 15_000);
        self.later(until, Event::Heal(Heal::Record));
    }

    /// A human wants a member to lead, whatever is lost by it: most often when writes have been failing for a while,
    /// sometimes in haste, sometimes with an old epoch, and takes it back some time later.
    pub(super) fn force_promotion(&mut self, m: usize) {
        let now = self.now;
        let down = now.saturating_sub(self.truth.acknowledged_at) > 3 * SECOND;
        let (hasty, old) = (self.dice.permille(200), self.dice.permille(150));
        let m = if self.dice.permille(700) { self.any() } else { m };
        let until = self.dice.millis(5_000, 40_000);
        if self.api.record.leader.is_none() {
            return;
        }
        if self.dice.permille(400) {
            self.one_is_left();
            return;
        }
        if !(down || hasty) {
            return;
        }
        let epoch = ha::Epoch(self.api.record.epoch.0.saturating_sub(u64::from(old)));
        self.wish_forced(m, epoch);
        self.later(until, Event::Heal(Heal::Forced));
    }

    /// All but one are gone or cut off for a while, and a human knows what that one is for.
    fn one_is_left(&mut self) {
        let left = self.any();
        let cut = self.dice.permille(300);
        let until = self.dice.millis(12_000, 35_000);
        let looks = self.dice.millis(500, 6_000);
        self.say(|| {
            format!("FAULT pg-{left} is left, the others are {}", if cut { "cut off" } else { "down" })
        });
        let leader = self.leader();
        for m in (0..self.real()).filter(|m| *m != left) {
            // Sometimes another one is left, too, which may hold less.
            if Some(m) != leader && self.dice.permille(300) {
                continue;
            }
            if cut {
                self.net.isolate(m, false);
                for other in (0..self.real()).filter(|other| *other != left) {
                    // They still reach each other, and perhaps the API server.
                    if let Some(link) = self.net.link_mut(m, other) {
                        link.up = true;
                    }
                }
                self.later(until, Event::Heal(Heal::Cut(m)));
            } else {
                self.kill_pod(m, true);
                self.later(until, Event::PodStart { m });
            }
        }
        self.later(looks, Event::Asked { m: left });
    }

    /// A human looks at the record and asks for this.
    pub(crate) fn asked(&mut self, m: usize) {
        let until = self.dice.millis(10_000, 40_000);
        if !self.calm && self.api.record.leader.is_some() {
            self.wish_forced(m, self.api.record.epoch);
            self.later(until, Event::Heal(Heal::Forced));
        }
    }

    /// A human asks for this.
    pub(crate) fn wish_forced(&mut self, m: usize, epoch: ha::Epoch) {
        let Some(member) = self.members.get(m).map(|member| member.name.clone()) else { return };
        self.say(|| format!("FAULT a human wants {member} to lead after epoch {epoch}, whatever is lost"));
        let forced = ha::Forced { member, epoch };
        self.truth_asked(forced.clone());
        self.settings.forced = Some(forced);
        self.spread_wishes();
    }

    /// The record is restored from a backup of an earlier write, and mended by a human.
    pub(super) fn restore_backup(&mut self) {
        let now = &self.api.record;
        let same_epoch = self.dice.permille(500);
        let old: Vec<usize> = (0..self.api.backups.len())
            .filter(|i| {
                self.api
                    .backups
                    .get(*i)
                    .is_some_and(|old| old.is_older_than(now) && (old.epoch == now.epoch) == same_epoch)
            })
            .collect();
        // A member that has not seen the newest cannot know: no protocol survives that.
        let seen = self
            .members
            .iter()
            .all(|member| member.promise.last_record.as_ref().is_some_and(|known| !known.is_older_than(now)));
        let Some(i) = old.get(self.dice.index(old.len())).copied().filter(|_| seen) else { return };
        if self.api.newest.is_some() {
            return;
        }
        let Some(old) = self.api.backups.get(i).cloned() else { return };
        self.say(|| {
            format!("FAULT write {} of epoch {} of the record is restored", old.generation, old.epoch)
        });
        self.api.newest = Some(std::mem::replace(&mut self.api.record, old));
        self.api.version += 1;
        let until = self.dice.millis(1_000, 15_000);
        self.later(until, Event::Heal(Heal::Record));
    }

    pub(super) fn move_route(&mut self) {
        if let Some((epoch, _)) = self.api.route {
            self.say(|| "FAULT somebody empties the write route".to_owned());
            self.api.route = Some((epoch, ha::Boot(0)));
        }
    }

    /// The recorded leader's pod runs on another node, and nobody but a human can know that its old process has ended
    /// (§2). Attested only when its volume holds everything.
    pub(super) fn attest(&mut self) {
        let Some(leader) = self.api.record.leader.clone() else { return };
        let runs = self.members.iter().any(|member| {
            member.pod.as_ref().is_some_and(|pod| pod.boot == leader.boot && pod.beat != u64::MAX)
        });
        let member = self.members.iter().find(|member| !member.ghost && member.id() == leader.member());
        let elsewhere = member.is_some_and(|member| format!("node-{}", member.node) != leader.node);
        let whole = member.and_then(|member| member.data.as_ref()).is_some_and(|data| {
            data.wal.at(self.truth.relied_on.len()).map(|rec| rec.id) == self.truth.relied_on.last().copied()
        });
        if runs || !elsewhere || leader.stopped {
            return;
        }
        if whole {
            self.say(|| format!("a human attests that the old life of {} has ended", leader.name));
            self.api.record.leader = Some(ha::LeaderId { stopped: true, ..leader });
            self.api.record.generation += 1;
            self.api.version += 1;
        } else {
            self.lost_leader = true;
        }
    }

    /// A human puts back what the record was.
    pub(crate) fn mend_record(&mut self) {
        self.api.hidden = None;
        if let Some(newest) = self.api.newest.take() {
            self.say(|| "healed: the record is put back".to_owned());
            self.api.record = newest;
            self.api.version += 1;
        }
    }
}
