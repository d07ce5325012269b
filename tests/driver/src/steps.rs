//! What agents tell of their steps, and the order to end one after a certain step.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use serde_json::Value;

use crate::api_server::ApiServer;
use crate::under_test::{END, GO_ON};

/// A step by its name and how often it was taken before in this story, from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// What was done.
    pub name: String,
    /// The how-manieth time, from 1.
    pub nth: usize,
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { name, nth } = self;
        if *nth == 1 { write!(f, "'{name}'") } else { write!(f, "'{name}', time {nth}") }
    }
}

/// The steps of one world.
#[derive(Clone)]
pub struct Steps(Arc<Mutex<Told>>);

#[derive(Default)]
struct Told {
    armed: Option<Armed>,
    /// Lives of each member's agent.
    lives: BTreeMap<String, usize>,
    promises: BTreeMap<String, Value>,
    /// Everything, for the report of a failure.
    all: Vec<String>,
}

struct Armed {
    member: String,
    /// The agent is ended at the first such step in any case; the story is what comes after.
    prelude: Option<fn(&str) -> bool>,
    end_after: Option<Step>,
    /// The agent was ended; its life by then.
    ended: Option<usize>,
    taken: Vec<Step>,
}

impl Steps {
    /// Listens to the agents of the world in `root`.
    pub fn listen(root: &Path, api: ApiServer) -> Self {
        let this = Self(Arc::default());
        let listener = UnixListener::bind(socket(root)).unwrap();
        let (steps, root) = (this.clone(), root.to_owned());
        std::thread::spawn(move || {
            for agent in listener.incoming() {
                let (steps, root, api) = (steps.clone(), root.clone(), api.clone());
                std::thread::spawn(move || steps.hear(agent.unwrap(), &root, &api));
            }
        });
        this
    }

    /// Begins a story about this member, whose agent is to be ended after this step; with a prelude it is ended there
    /// before, and the story begins then.
    pub fn arm(&self, member: &str, prelude: Option<fn(&str) -> bool>, end_after: Option<Step>) {
        let member = member.to_owned();
        let story = Armed { member, prelude, end_after, ended: None, taken: Vec::new() };
        self.0.lock().unwrap().armed = Some(story);
    }

    /// The steps that were taken since.
    pub fn taken(&self) -> Vec<Step> {
        self.0.lock().unwrap().armed.as_ref().map(|armed| armed.taken.clone()).unwrap_or_default()
    }

    /// Whether the story has begun: its prelude, if any, is over.
    pub fn begun(&self) -> bool {
        self.0.lock().unwrap().armed.as_ref().is_some_and(|armed| armed.prelude.is_none())
    }

    /// Whether the agent was ended as ordered, and lives again.
    pub fn ended(&self) -> (bool, bool) {
        let told = self.0.lock().unwrap();
        let Some(armed) = &told.armed else { return (false, false) };
        let lives = told.lives.get(&armed.member).copied().unwrap_or_default();
        (armed.ended.is_some(), armed.ended.is_some_and(|then| lives > then))
    }

    /// The last steps of everybody.
    pub fn last(&self, count: usize) -> Vec<String> {
        let told = self.0.lock().unwrap();
        told.all[told.all.len().saturating_sub(count)..].to_vec()
    }

    fn hear(&self, mut agent: UnixStream, root: &Path, api: &ApiServer) {
        let mut words = BufReader::new(agent.try_clone().unwrap());
        let Some(member) = whole_line(&mut words) else { return };
        *self.0.lock().unwrap().lives.entry(member.clone()).or_default() += 1;
        while let Some(line) = whole_line(&mut words) {
            let end = self.take(&member, &line, root, api);
            if agent.write_all(&[if end { END } else { GO_ON }]).is_err() {
                return;
            }
        }
    }

    /// Whether the agent is to end here.
    fn take(&self, member: &str, line: &str, root: &Path, api: &ApiServer) -> bool {
        let mut told = self.0.lock().unwrap();
        let name = name(&mut told.promises, member, line, root, api);
        told.all.push(format!("{member}: {name}"));
        let alive = told.lives[member];
        let Some(armed) = told.armed.as_mut().filter(|armed| armed.member == member) else { return false };
        if let Some(is_it) = armed.prelude {
            let end = is_it(&name);
            if end {
                armed.prelude = None;
                told.all.push(format!("{member}: ENDED, as every time"));
            }
            return end;
        }
        let nth = 1 + armed.taken.iter().filter(|step| step.name == name).count();
        let step = Step { name, nth };
        let end = armed.ended.is_none() && armed.end_after.as_ref() == Some(&step);
        armed.taken.push(step);
        if end {
            armed.ended = Some(alive);
            told.all.push(format!("{member}: ENDED"));
        }
        end
    }
}

/// The next line; none when the agent is gone, even if it was killed within a word.
fn whole_line(words: &mut impl BufRead) -> Option<String> {
    let mut line = String::new();
    words.read_line(&mut line).ok()?;
    line.strip_suffix('\n').map(str::to_owned)
}

/// Where the agents of the world in `root` tell their steps.
pub fn socket(root: &Path) -> PathBuf {
    root.join("steps")
}

/// The same name in every world: no places, no numbers that grow.
fn name(
    promises: &mut BTreeMap<String, Value>,
    member: &str,
    line: &str,
    root: &Path,
    api: &ApiServer,
) -> String {
    let (kind, what) = line.split_once(' ').unwrap();
    let volume = root.join(member);
    let what = what.replace(&format!("{}/", volume.display()), "");
    match kind {
        "File" if what == "wrote volume/matriarch/promise.json" => {
            let new = std::fs::read(volume.join("volume/matriarch/promise.json")).unwrap();
            let new: Value = serde_json::from_slice(&new).unwrap();
            let old = promises.insert(member.to_owned(), new.clone()).unwrap_or_default();
            format!("promised {}", differences(&old, &new))
        }
        "File" => without_numbers(&what.replace("volume/", "")),
        "Api" => {
            let written = api.said(member, &what).unwrap_or_default();
            format!("api: {what} {written}")
        }
        "Supervisor" => format!("supervisor: {what}"),
        "Statement" => format!("sql: {what}"),
        "Signal" => format!("signal {what}"),
        // Without how much there is to do.
        "Program" if what.contains(" says ") => what
            .split(|letter: char| letter.is_ascii_digit())
            .next()
            .unwrap_or_default()
            .trim_end()
            .to_owned(),
        _ => what,
    }
}

/// The fields whose values differ, in words.
pub fn differences(old: &Value, new: &Value) -> String {
    let fields = |of: &Value| of.as_object().cloned().unwrap_or_default();
    let (old, new) = (fields(old), fields(new));
    let all: std::collections::BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let differ: Vec<&str> =
        all.into_iter().filter(|key| old.get(*key) != new.get(*key)).map(String::as_str).collect();
    differ.join(" ")
}

/// Timelines, segments and times in names of files.
fn without_numbers(text: &str) -> String {
    let mut out = String::new();
    let mut run = String::new();
    let flush = |run: &mut String, out: &mut String| {
        let number = run.len() >= 8 && run.bytes().all(|it| it.is_ascii_hexdigit());
        out.push_str(if number { "…" } else { run });
        run.clear();
    };
    for letter in text.chars() {
        if letter.is_ascii_alphanumeric() {
            run.push(letter);
        } else {
            flush(&mut run, &mut out);
            out.push(letter);
        }
    }
    flush(&mut run, &mut out);
    out
}
