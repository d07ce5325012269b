//! How a volume gets another member's data: a clone, a rewind, a rebuild.

use ha::Action;

use crate::world::World;

impl World {
    /// Fills an empty volume, rewinds or rebuilds, at the end of the long act.
    pub fn copy_done(&mut self, m: usize, action: &Action) {
        let (Action::Clone { from } | Action::Rewind { from } | Action::Reclone { from }) = action else {
            return;
        };
        let p = self.members.iter().position(|other| other.name == from.member.name);
        let Some(p) = p.filter(|p| *p != m && self.net.passes(m, *p) && self.net.passes(*p, m)) else {
            return;
        };
        let fails = self.dice.permille(60);
        let Some(other) = self.members.get(p) else { return };
        let same_life = other.pod.as_ref().is_some_and(|pod| pod.boot == from.boot);
        let (Some(_), Some(source), true) = (other.primary(), other.data.clone(), same_life) else { return };
        let system = other.promise.system_identifier;
        if fails {
            self.say(|| format!("pg-{m} copy from pg-{p} fails"));
            // A rewind that dies half-way costs a copy: only when there are others, else it fails before it touches
            // anything. A cluster that has lost more copies than it may waits for a human.
            let id = self.members.get(m).map(crate::member::Member::id);
            let needed = self.api.record.electorates.iter().any(|electorate| {
                electorate.members.is_empty() || id.as_ref().is_some_and(|id| electorate.members.contains(id))
            });
            if let Some(member) = self.members.get_mut(m).filter(|_| needed) {
                member.promise.rewinding = false;
                if let Some(data) = &mut member.data {
                    data.torn = false;
                }
            }
            return;
        }
        if matches!(action, Action::Rewind { .. }) {
            self.truth_rewound(m);
        }
        let Some(member) = self.members.get_mut(m) else { return };
        if let Action::Rewind { .. } = action {
            let Some(data) = &mut member.data else { return };
            data.rewind_to(&source);
            data.torn = false;
            member.promise.rewinding = false;
            let more = data.consistent_at > data.wal.end();
            member.promise.catching_up = more.then(|| source.wal.timeline());
        } else {
            let data = source.cloned();
            member.data = Some(data);
            member.promise.system_identifier = system;
            member.promise.bootstrap = ha::Bootstrap::Member;
            member.promise.rewinding = false;
            member.promise.catching_up = None;
        }
        let end = member.data.as_ref().map_or(0, |data| data.wal.end());
        self.say(|| format!("pg-{m} now holds pg-{p}'s log up to {end}"));
    }
}
