//! Which worlds there are, and what is told of them.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Parser;
use postgres::Binaries;
use serde_json::Value;
use tokio::sync::{Semaphore, watch};

use crate::steps::Step;
use crate::stories::Story;
use crate::world::World;

/// Ends the agent after each of its steps.
#[derive(Debug, Parser)]
struct Arguments {
    /// After every step; without it after so many steps of each story, spread evenly.
    #[arg(long)]
    all: bool,
    /// With `--all`: from this step on, so that it can be run in parts.
    #[arg(long, default_value_t = 1)]
    from: usize,
    /// With `--all`: up to this step.
    #[arg(long)]
    to: Option<usize>,
    /// How many steps of each story.
    #[arg(long, default_value_t = 3)]
    points: usize,
    /// Worlds at once.
    #[arg(long, default_value_t = 4)]
    at_once: usize,
    /// After this step of every story that has so many, and no other.
    #[arg(long)]
    step: Option<usize>,
    /// Prints every step's name, and the last words of a member that fails.
    #[arg(long)]
    verbose: bool,
}

/// The undisturbed story.
struct Reference {
    steps: Vec<Step>,
    end: Value,
}

/// By story, as the undisturbed world comes to its end.
struct References([watch::Sender<Option<Arc<Reference>>>; Story::ALL.len()]);

impl Default for References {
    fn default() -> Self {
        Self(std::array::from_fn(|_| watch::Sender::new(None)))
    }
}

impl References {
    /// Waits for it; the undisturbed world has bounds of its own.
    async fn of(&self, story: Story) -> Arc<Reference> {
        let mut told = self.0[story as usize].subscribe();
        told.wait_for(Option::is_some).await.unwrap().clone().unwrap()
    }

    fn all_known(&self) -> bool {
        self.0.iter().all(|it| it.borrow().is_some())
    }

    /// The last story that has so many steps.
    fn last(&self, number: usize) -> Option<usize> {
        let has = |it: &watch::Sender<Option<Arc<Reference>>>| {
            it.borrow().as_ref().is_some_and(|reference| reference.steps.len() >= number)
        };
        self.0.iter().rposition(has)
    }

    /// Steps of the longest story.
    fn most(&self) -> usize {
        let known = self.0.iter().filter_map(|it| it.borrow().clone());
        known.map(|it| it.steps.len()).max().unwrap_or_default()
    }
}

/// Runs it all.
pub(crate) fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let (passed, failed) = runtime.block_on(run(arguments));
    println!("{passed} passed, {failed} failed");
    if failed == 0 && passed > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

async fn run(arguments: Arguments) -> (usize, usize) {
    let directory = PathBuf::from(std::env::var_os("MATRIARCH_POSTGRES").expect("the directory of programs"));
    let binaries = Binaries::at(&directory).expect("the programs of a server");
    let start = Instant::now();
    let references = Arc::new(References::default());
    let room = Arc::new(Semaphore::new(arguments.at_once));
    let spread = (!arguments.all && arguments.step.is_none()).then_some(arguments.points);
    let mut running = tokio::task::JoinSet::new();
    let verbose = arguments.verbose;
    let mut disturb = |number: usize| {
        let (references, room, binaries) = (Arc::clone(&references), Arc::clone(&room), binaries.clone());
        running.spawn(async move {
            let _room = room.acquire_owned().await.unwrap();
            disturbed(number, spread, &references, &binaries, verbose).await
        });
    };
    // A disturbed world may begin before the undisturbed one has ended: it waits for each story's end.
    let first = match arguments.step {
        Some(step) => step..=step,
        None if arguments.all => arguments.from..=arguments.from + arguments.at_once.saturating_sub(2),
        None => 1..=arguments.points,
    };
    let then = first.end() + 1;
    first.for_each(&mut disturb);
    if !undisturbed(&binaries, &references, verbose).await {
        return (0, 1);
    }
    if arguments.all && arguments.step.is_none() {
        let last = arguments.to.map_or(references.most(), |to| to.min(references.most()));
        (then..=last).for_each(&mut disturb);
    }
    let (mut passed, mut failed, mut missed) = (0, 0, 0);
    while let Some(counts) = running.join_next().await {
        // A panic of ours is a failure too.
        let (more, fewer, not_taken) = counts.unwrap_or((0, 1, 0));
        passed += more;
        failed += fewer;
        missed += not_taken;
    }
    println!(
        "{passed} times killed, {missed} steps never came again, {:.1} s",
        start.elapsed().as_secs_f64()
    );
    // Some steps depend on what comes first, such as an upkeep. Most must come, or nothing is tested.
    if missed * 3 > passed {
        println!("too many steps never came");
        failed += 1;
    }
    (passed, failed)
}

/// The first world: nobody is ended. Whether all went well.
async fn undisturbed(binaries: &Binaries, references: &References, verbose: bool) -> bool {
    let world = World::new(1, binaries.directory(), binaries.major().0).await;
    for story in Story::ALL {
        let start = Instant::now();
        match story.tell(&world, None, None).await {
            Ok(told) => {
                println!(
                    "{}: {} steps, {:.1} s",
                    story.name(),
                    told.steps.len(),
                    start.elapsed().as_secs_f64()
                );
                if verbose {
                    for (number, step) in told.steps.iter().enumerate() {
                        println!("    {:>3} {step}", number + 1);
                    }
                    println!("{:#}", told.end);
                }
                let reference = Reference { steps: told.steps, end: told.end };
                references.0[story as usize].send_replace(Some(Arc::new(reference)));
            }
            Err(error) => {
                println!("{}: FAILED undisturbed: {error:#}", story.name());
                report(&world, verbose);
                return false;
            }
        }
    }
    true
}

/// One world in which each story's agent is ended once. How many times it was and all went well, how many times not,
/// and how many steps never came.
async fn disturbed(
    number: usize,
    spread: Option<usize>,
    references: &References,
    binaries: &Binaries,
    verbose: bool,
) -> (usize, usize, usize) {
    let network = u8::try_from(number + 1).expect("worlds have networks of their own");
    let world = World::new(network, binaries.directory(), binaries.major().0).await;
    let (mut passed, mut missed) = (0, 0);
    for story in Story::ALL {
        if references.all_known() && references.last(number) < Some(story as usize) && spread.is_none() {
            break;
        }
        let reference = references.of(story).await;
        let count = reference.steps.len();
        let chosen = match spread {
            Some(points) => Some((number - 1) * count / points + 1),
            None => Some(number).filter(|number| *number <= count),
        };
        let step = chosen.map(|number| reference.steps[number - 1].clone());
        let name = match (&step, chosen) {
            (Some(step), Some(number)) => {
                format!("{}: killed after step {number} of {count}, {step}", story.name())
            }
            _ => format!("{}: nobody killed", story.name()),
        };
        let start = Instant::now();
        let wanted = Some(&reference.end);
        match tokio::time::timeout(Duration::from_secs(1200), story.tell(&world, step.clone(), wanted)).await
        {
            Ok(Ok(told)) if step.is_none() => drop(told),
            Ok(Ok(told)) if told.ended => {
                println!("{name}: ok, {:.1} s", start.elapsed().as_secs_f64());
                passed += 1;
            }
            Ok(Ok(_)) => {
                println!("{name}: the step never came");
                missed += 1;
            }
            Ok(Err(error)) => {
                println!("{name}: FAILED in world {}: {error:#}", world.number);
                report(&world, verbose);
                return (passed, 1, missed);
            }
            Err(_) => {
                println!("{name}: FAILED in world {}: it hangs", world.number);
                report(&world, verbose);
                return (passed, 1, missed);
            }
        }
    }
    (passed, 0, missed)
}

fn report(world: &World, verbose: bool) {
    println!("the last steps:\n  {}", world.steps.last(40).join("\n  "));
    if let Some(record) = world.record() {
        println!("the record: {}", serde_json::to_string(&record).unwrap_or_default());
    }
    for member in &world.members {
        println!("{} said last:\n{}", member.name, member.log(verbose));
    }
}
