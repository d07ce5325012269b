//! What breaks: processes, networks, the API server, clocks, the Lease itself.

use ha::election::Content;

use super::{Event, Kind, World};

impl World {
    /// One fault, of what this kind of world has.
    pub(super) fn fault(&mut self) {
        let index = self.dice.index(self.nodes.len());
        let leader = self.leaders().first().copied().unwrap_or(index);
        // The leader is worth most.
        let index = if self.dice.permille(500) { leader } else { index };
        let time = if self.dice.permille(500) {
            self.dice.millis(100, 3000)
        } else {
            self.dice.millis(3000, 30_000)
        };
        let what = match self.kind {
            Kind::Calm | Kind::Gentle => return,
            Kind::OneClock => [0, 4, 8][self.dice.index(3)],
            Kind::Chaos => self.dice.between(0, 9),
        };
        match what {
            0 | 1 => {
                self.say(|| format!("n{index} is paused for {} s", sim::dice::seconds(time)));
                if let Some(node) = self.nodes.get_mut(index) {
                    node.paused = true;
                }
                self.push(self.now + time, Event::Resume(index));
            }
            2 => {
                self.say(|| format!("n{index} is cut off for {} s", sim::dice::seconds(time)));
                if let Some(node) = self.nodes.get_mut(index) {
                    node.cut = true;
                }
                self.push(self.now + time, Event::Heal(index));
            }
            3 => {
                self.say(|| format!("the API server is down for {} s", sim::dice::seconds(time)));
                self.api_down = true;
                self.push(self.now + time, Event::ApiUp);
            }
            4 => {
                self.say(|| format!("n{index} is killed"));
                self.stop(index);
                self.push(self.now + time, Event::Start(index));
            }
            5 if self.deletions => {
                self.say(|| "the Lease is deleted".to_owned());
                self.register.delete();
                self.tell_watches();
                if self.dice.permille(300) {
                    self.say(|| "and made anew, empty".to_owned());
                    self.put(Content::default());
                    self.tell_watches();
                }
            }
            6 => {
                let (rate, offset) = self.rate();
                let now = self.now;
                self.say(|| {
                    format!("n{index}'s clock runs at {rate} permille, its wall clock is off by another time")
                });
                if let Some(node) = self.nodes.get_mut(index) {
                    node.clock.set_rate(rate, now);
                    node.clock.step_wall(offset);
                }
            }
            _ => self.step_down(index),
        }
    }
}
