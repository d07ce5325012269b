//! PID 1: the part of a member that nothing else can break.
//!
//! One thread, one loop, no waiting but in `poll`. It starts the agent and, on the agent's wish, Postgres; reaps
//! everything; holds the volume's lock; answers the kubelet; and kills every process of Postgres when the agent has been
//! silent for two seconds (§5). It must never end because Postgres or the agent did (K8), never say that Postgres is
//! gone while a process of it is left (P7), and never wait for anybody. The test is `tests/supervisor.rs`.

mod agent;
mod livez;
mod logs;
mod output;
mod pace;
mod postgres;
mod processes;
mod signals;
mod termination;
mod volume_lock;

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use ha::{Boot, Instant};
use rustix::event::{PollFd, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{WaitOptions, getpid, set_child_subreaper, wait};
use serde_json::json;

use crate::clock;
use crate::config::SupervisorConfig;
use crate::control::{Exit, StartCommand, ToAgent, ToSupervisor};
use agent::Agent;
pub use agent::BOOT_VARIABLE;
use livez::Livez;
use logs::{Log, Source};
use output::{Level, Output};
use postgres::{Looked, Postgres};
use processes::Mark;
use signals::Signals;
use termination::{Step, Termination};
use volume_lock::{Tried, VolumeLock};

/// A turn of the loop comes at least this often.
const TURN: Duration = Duration::from_secs(1);
/// A complaint that lasts is repeated this often.
const REPEAT: Duration = Duration::from_secs(10);

/// Runs until the pod ends.
///
/// # Errors
/// Only what keeps it from starting: no pipes, no signal handlers.
pub fn run(config: SupervisorConfig) -> io::Result<()> {
    let mut supervisor = Supervisor::new(config)?;
    supervisor.serve();
    supervisor.agent_log.turn(&mut supervisor.output);
    supervisor.postgres_log.turn(&mut supervisor.output);
    supervisor.output.finish();
    Ok(())
}

struct Supervisor {
    config: SupervisorConfig,
    pid: i32,
    boot: Boot,
    started_at: Instant,
    output: Output,
    signals: Signals,
    livez: Livez,
    lock: VolumeLock,
    agent: Agent,
    agent_log: Log,
    postgres: Postgres,
    postgres_log: Log,
    mark: Option<Mark>,
    /// The last `Kill` to be answered.
    nonce: u64,
    /// A dead agent's tools may be left.
    sweeping: bool,
    termination: Option<Termination>,
    complaints: BTreeMap<&'static str, Instant>,
}

impl Supervisor {
    fn new(config: SupervisorConfig) -> io::Result<Self> {
        let pid = getpid();
        if !pid.is_init() {
            set_child_subreaper(Some(pid))?;
        }
        let boot = Boot(rand::random());
        Ok(Self {
            pid: pid.as_raw_nonzero().get(),
            boot,
            started_at: clock::now(),
            output: Output::to_stdout()?,
            signals: Signals::register()?,
            livez: Livez::new(config.live_listen),
            lock: VolumeLock::new(config.places.lock()),
            agent: Agent::new(config.agent_program.clone(), boot),
            agent_log: Log::new(Source::Agent)?,
            postgres: Postgres::Gone,
            postgres_log: Log::new(Source::Postgres)?,
            mark: None,
            nonce: 0,
            sweeping: false,
            termination: None,
            complaints: BTreeMap::new(),
            config,
        })
    }

    fn serve(&mut self) {
        let boot = self.boot.to_string();
        self.output.say(Level::Info, "the supervisor starts", json!({ "boot": boot, "pid": self.pid }));
        loop {
            self.take_lock();
            self.reap();
            self.hear_agent();
            self.judge_silence();
            self.look();
            self.keep_agent();
            if self.terminate() {
                self.output.say(Level::Info, "the supervisor ends", json!({}));
                return;
            }
            self.agent_log.turn(&mut self.output);
            self.postgres_log.turn(&mut self.output);
            if let Err(error) = self.livez.turn() {
                self.complain("cannot listen for the kubelet", &error);
            }
            self.output.turn();
            self.wait();
        }
    }

    fn wait(&mut self) {
        let now = clock::now();
        let dues = [
            self.agent.start_at().filter(|_| self.may_start_agent()),
            self.agent.silent_at(matches!(self.postgres, Postgres::Running { .. })),
            self.postgres.due(),
            self.lock.due(),
            self.termination.as_ref().map(Termination::due).filter(|due| *due > now),
            self.sweeping.then(|| now.after(Duration::from_millis(20))),
        ];
        let due = dues.into_iter().flatten().min().map_or(TURN, |due| due.since(now));
        // What is overdue here is waiting for something else: no spinning.
        let due = due.clamp(Duration::from_millis(1), TURN);
        let timeout = Timespec {
            tv_sec: i64::try_from(due.as_secs()).unwrap_or(1),
            tv_nsec: i64::from(due.subsec_nanos()),
        };
        let mut fds: Vec<PollFd<'_>> = Vec::new();
        self.signals.interest(&mut fds);
        self.livez.interest(&mut fds);
        self.agent.interest(&mut fds);
        self.agent_log.interest(&mut fds);
        self.postgres_log.interest(&mut fds);
        self.output.interest(&mut fds);
        // An interrupted or failed wait is a turn like any other.
        let _ = poll(&mut fds, Some(&timeout));
    }

    fn take_lock(&mut self) {
        match self.lock.turn() {
            Tried::NotDue => {}
            Tried::Obtained => {
                self.output.say(Level::Info, "the volume's lock is held", json!({}));
                self.tell(&ToAgent::LockHeld);
            }
            Tried::Unsupported => {
                let message =
                    "the volume's file system has no locks: a re-started leader cannot lead on by itself";
                self.output.say(Level::Warn, message, json!({}));
            }
            Tried::Failed(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.complain("the volume's lock is another's", &error);
            }
            Tried::Failed(error) => self.complain("cannot take the volume's lock", &error),
        }
    }

    fn reap(&mut self) {
        self.signals.drain();
        loop {
            let (pid, status) = match wait(WaitOptions::NOHANG) {
                Ok(Some(reaped)) => reaped,
                Err(Errno::INTR) => continue,
                Ok(None) | Err(_) => return,
            };
            let pid = pid.as_raw_nonzero().get();
            let exit = match (status.exit_status(), status.terminating_signal()) {
                (Some(code), _) => Exit::Code(code),
                (_, Some(signal)) => Exit::Signal(signal),
                _ => continue,
            };
            if Some(pid) == self.agent.pid() {
                // What it said last counts.
                self.hear_agent();
                self.agent.ended();
                self.sweeping = true;
                let fields = json!({ "pid": pid, "exit": exit.to_string() });
                self.output.say(Level::Warn, "the agent ended", fields);
            } else if Some(pid) == self.postgres.pid() {
                self.postgres.postmaster_ended();
                let fields = json!({ "pid": pid, "exit": exit.to_string() });
                self.output.say(Level::Info, "the postmaster ended", fields);
                self.tell(&ToAgent::Exited { pid: pid.cast_unsigned(), exit });
            }
        }
    }

    fn hear_agent(&mut self) {
        for said in self.agent.listen() {
            match said {
                Ok(ToSupervisor::Heartbeat { .. }) => {}
                Ok(ToSupervisor::Start(command)) => self.start_postgres(&command),
                Ok(ToSupervisor::Kill { nonce }) => {
                    self.nonce = nonce;
                    self.postgres.end(false);
                }
                Ok(ToSupervisor::Signal(signal)) => {
                    if let Err(error) = self.postgres.signal(signal) {
                        self.complain("cannot signal the postmaster", &error);
                    }
                }
                Ok(ToSupervisor::Finished) => {
                    self.output.say(Level::Info, "the agent has finished", json!({}));
                    self.termination.get_or_insert_with(|| Termination::new(&self.config)).finish();
                    self.postgres.end(false);
                }
                Err(error) => self.complain("the agent's words cannot be read", &error),
            }
        }
    }

    fn start_postgres(&mut self, command: &StartCommand) {
        let refuse = if !self.lock.permits_start() {
            Some("another holds the volume's lock".to_owned())
        } else if !self.postgres.is_gone() {
            Some("processes of it are left".to_owned())
        } else if self.termination.as_ref().is_some_and(Termination::finished) {
            Some("the pod ends".to_owned())
        } else {
            None
        };
        let started = match refuse {
            Some(why) => Err(why),
            None => Mark::of(&command.program, &command.cwd)
                .and_then(|mark| {
                    self.mark = Some(mark);
                    self.postgres.start(command, &self.postgres_log)
                })
                .map_err(|error| error.to_string()),
        };
        match started {
            Ok(pid) => {
                self.output.say(Level::Info, "the postmaster starts", json!({ "pid": pid }));
                self.tell(&ToAgent::Started { pid });
            }
            Err(why) => {
                self.output.say(Level::Warn, "Postgres is not started", json!({ "why": why }));
                self.tell(&ToAgent::Refused { why });
            }
        }
    }

    /// §5: an agent that is silent cannot fence, so everything it could not fence goes, and it goes too.
    fn judge_silence(&mut self) {
        let running = matches!(self.postgres, Postgres::Running { .. });
        let now = clock::now();
        if self.agent.silent_at(running).is_none_or(|at| now < at) {
            return;
        }
        if running {
            self.output.say(
                Level::Error,
                "the agent is silent: every process of Postgres is killed",
                json!({}),
            );
        } else if matches!(self.postgres, Postgres::Gone) {
            self.output.say(Level::Error, "the agent is silent and is killed", json!({}));
        }
        self.postgres.end(true);
    }

    fn look(&mut self) {
        match self.postgres.look(self.pid, self.agent.pid(), self.mark) {
            Ok(Looked::NotDue) => {}
            Ok(Looked::Left(left)) => {
                let what = "processes of Postgres are being killed";
                if self.complaint_due(what) {
                    self.output.say(Level::Info, what, json!({ "left": left }));
                }
            }
            Ok(Looked::AllGone { took, killed }) => {
                let millis = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
                let fields = json!({ "signals": killed, "millis": millis });
                self.output.say(Level::Info, "no process of Postgres is left", fields);
                self.tell(&ToAgent::AllGone { nonce: self.nonce });
            }
            Err(error) => self.complain("cannot kill every process of Postgres", &error),
        }
    }

    fn may_start_agent(&self) -> bool {
        let waited = clock::now().since(self.started_at).as_secs() >= self.config.lock_wait_seconds;
        let ending = self.termination.as_ref().is_some_and(|t| t.finished() || self.postgres.is_gone());
        (self.lock.permits_start() || waited) && !ending && !self.sweeping && !self.postgres.ends_agent()
    }

    fn keep_agent(&mut self) {
        if self.sweeping {
            match postgres::sweep_orphans(self.pid, self.postgres.pid()) {
                Ok(left) => self.sweeping = left,
                Err(error) => self.complain("cannot end what a dead agent left", &error),
            }
        }
        let due = self.agent.start_at().is_some_and(|at| clock::now() >= at);
        if !due || !self.may_start_agent() {
            return;
        }
        let hello = ToAgent::Hello {
            boot: self.boot,
            holds_lock: self.lock.held(),
            postmaster: match self.postgres {
                Postgres::Running { pid } => Some(pid.cast_unsigned()),
                _ => None,
            },
            ending: matches!(self.postgres, Postgres::Ending(_)),
            terminating: self.termination.is_some(),
        };
        self.nonce = 0;
        match self.agent.start(&self.agent_log, &hello) {
            Ok(pid) => self.output.say(Level::Info, "the agent starts", json!({ "pid": pid })),
            Err(error) => self.complain("cannot start the agent", &error),
        }
    }

    /// Returns whether all is over.
    fn terminate(&mut self) -> bool {
        if self.signals.terminate() && self.termination.is_none() {
            self.output.say(Level::Info, "the pod is asked to end", json!({}));
            self.termination = Some(Termination::new(&self.config));
            self.tell(&ToAgent::Terminating);
        }
        let (gone, agent) = (self.postgres.is_gone(), self.agent.pid().is_some());
        let Some(termination) = &mut self.termination else { return false };
        match termination.step(gone, agent) {
            Step::Wait => {}
            Step::Fast => {
                self.output.say(Level::Warn, "no hand-over within the bound: fast stop", json!({}));
                if let Err(error) = self.postgres.signal(crate::control::PostmasterSignal::Fast) {
                    self.complain("cannot signal the postmaster", &error);
                }
            }
            Step::Kill => {
                self.output.say(Level::Warn, "no clean stop within the bound: immediate stop", json!({}));
                self.postgres.end(true);
            }
            Step::End => return true,
        }
        false
    }

    fn tell(&mut self, what: &ToAgent) {
        if let Err(error) = self.agent.tell(what) {
            self.complain("the agent does not listen and must start anew", &error);
            self.postgres.end(true);
        }
    }

    /// Whether it is to be said now: at once, and then every [`REPEAT`].
    fn complaint_due(&mut self, what: &'static str) -> bool {
        let now = clock::now();
        let due = self.complaints.get(what).is_none_or(|said| now >= said.after(REPEAT));
        if due {
            self.complaints.insert(what, now);
        }
        due
    }

    fn complain(&mut self, what: &'static str, error: &dyn std::error::Error) {
        if self.complaint_due(what) {
            self.output.say(Level::Error, what, json!({ "error": telemetry::report(error) }));
        }
    }
}
