//! Two processes of one incarnation (§2): an old server that goes on beside the new life of its member.
//!
//! Backends outlive their postmaster by seconds (P7); a pod that was force-deleted from a cut-off node runs on there,
//! with a volume that was attached twice. A ghost keeps its streams, its kept sessions and its own copy of what the
//! volume held; it ends when its Postgres ends.

use ha::Boot;

use crate::dice::MS;
use crate::event::Event;
use crate::faults::Heal;
use crate::member::{Member, State};
use crate::world::World;

impl World {
    /// How many members there are, ghosts apart.
    pub fn real(&self) -> usize {
        self.members.iter().take_while(|member| !member.ghost).count()
    }

    /// The master of this member goes on as a ghost: with its agent when the whole pod was force-deleted, without
    /// when only its postmaster died. Its index, or none when there was no master.
    fn haunt(&mut self, m: usize, whole_pod: bool) -> Option<usize> {
        let (z, life) = (self.members.len(), self.id());
        let member = self.members.get_mut(m)?;
        member.primary().filter(|primary| !primary.stopping)?;
        if let Some(data) = &mut member.data {
            data.wal.flushed = data.wal.end();
        }
        let mut pod = member.pod.take()?;
        if !whole_pod {
            let mut agent = pod.agent.take();
            if let Some(agent) = &mut agent {
                if matches!(agent.busy, Some("promotion" | "stop")) {
                    agent.busy = None;
                }
                agent.doing.clear();
            }
            member.pod = Some(crate::member::Pod {
                boot: pod.boot,
                agent,
                beat: pod.beat,
                pg: life,
                state: State::Down,
                terminating: pod.terminating,
            });
            if let Some(data) = &mut member.data {
                data.clean = false;
                data.was_standby = false;
            }
            pod.beat = u64::MAX;
        }
        if let Some(agent) = &mut pod.agent {
            // What it was doing is lost with its place in the queue; it looks again.
            agent.busy = None;
            agent.doing.clear();
        }
        let (pg, boot, agent) = (pod.pg, pod.boot, pod.agent.as_ref().map(|agent| agent.life));
        let ghost = Member {
            name: member.name.clone(),
            promise: member.promise.clone(),
            data: member.data.clone(),
            pod: Some(pod),
            agent_frozen: member.agent_frozen,
            pg_frozen: member.pg_frozen,
            full_until: 0,
            thawed: member.thawed,
            settings: member.settings.clone(),
            node: member.node,
            ghost: true,
            offset: member.offset,
            rate: member.rate,
        };
        if !whole_pod {
            member.pg_frozen = 0;
        }
        self.members.push(ghost);
        self.net.grow(m);
        for conn in self.conns.values_mut().filter(|conn| conn.primary == m && conn.primary_pg == pg) {
            conn.primary = z;
        }
        let change = self.members.get(z).and_then(Member::primary).map_or(0, |primary| primary.changes);
        self.later(5 * MS, Event::NamesInForce { m: z, pg, change });
        if let Some(agent) = agent {
            self.later(MS, Event::Tick { m: z, agent });
        }
        if whole_pod {
            self.later(250 * MS, Event::Supervise { m: z, pod: boot.0 });
        }
        self.nudge(m);
        Some(z)
    }

    /// Somebody kills the postmaster alone; its backends and walsenders go on until somebody ends them.
    pub fn kill_postmaster(&mut self, m: usize) {
        let rule = self.world_rules.end_every_process;
        let lives = if rule { self.dice.millis(2, 60) } else { self.dice.millis(2_000, 8_000) };
        let Some(z) = self.haunt(m, false) else {
            self.kill_postgres(m);
            return;
        };
        self.say(|| format!("pg-{m}: backends outlive the postmaster"));
        self.later(lives, Event::Heal(Heal::Ghost(z)));
    }

    /// The pod is deleted by force and its member starts on another node, while the old one runs on.
    pub fn force_delete(&mut self, m: usize) -> bool {
        let delay = self.dice.millis(300, 8_000);
        let lives = self.dice.millis(3_000, 25_000);
        let Some(z) = self.haunt(m, true) else { return false };
        let node = self.id() + 1000;
        if let Some(member) = self.members.get_mut(m) {
            member.node = node;
        }
        self.later(delay, Event::PodStart { m });
        self.later(lives, Event::Heal(Heal::Ghost(z)));
        true
    }

    /// A ghost ends, and with it everything it still ran.
    pub fn end_ghost(&mut self, z: usize) {
        if !self.members.get(z).is_some_and(|member| member.ghost && member.pod.is_some()) {
            return;
        }
        self.say(|| format!("ghost {z} ends"));
        self.inherit(z);
        self.kill_postgres(z);
    }

    /// Backends of the same pod wrote into the same directory, as long as nobody started over them.
    pub(crate) fn inherit(&mut self, z: usize) {
        let Some(ghost) = self.members.get(z).filter(|ghost| ghost.pod.is_some()) else { return };
        let boot: Option<Boot> = ghost.pod.as_ref().filter(|pod| pod.beat == u64::MAX).map(|pod| pod.boot);
        let Some(wal) = ghost.data.as_ref().map(|data| data.wal.clone()).filter(|_| boot.is_some()) else {
            return;
        };
        let heir = self.members.iter_mut().find(|member| {
            !member.ghost
                && member
                    .pod
                    .as_ref()
                    .is_some_and(|pod| Some(pod.boot) == boot && matches!(pod.state, State::Down))
        });
        if let Some(data) = heir.and_then(|member| member.data.as_mut())
            && data.wal.common(&wal) == data.wal.end()
        {
            data.wal = wal;
        }
    }

    /// Before a start, nothing of an older life of this pod may run.
    pub fn end_ghosts_beside(&mut self, m: usize) {
        let Some(boot) = self.members.get(m).and_then(|member| member.pod.as_ref()).map(|pod| pod.boot)
        else {
            return;
        };
        for z in self.real()..self.members.len() {
            if self.members.get(z).and_then(|ghost| ghost.pod.as_ref()).map(|pod| pod.boot) == Some(boot) {
                self.end_ghost(z);
            }
        }
    }

    /// What a start over living backends finds on the disk.
    pub fn start_over_ghosts(&mut self, m: usize) {
        let Some(boot) = self.members.get(m).and_then(|member| member.pod.as_ref()).map(|pod| pod.boot)
        else {
            return;
        };
        for z in self.real()..self.members.len() {
            if self.members.get(z).and_then(|ghost| ghost.pod.as_ref()).map(|pod| pod.boot) == Some(boot) {
                self.inherit(z);
            }
        }
    }
}
