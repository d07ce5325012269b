//! How long clients cannot write when the master fails, by fault: measured over and over, told as percentiles.
//!
//! It judges as the scenarios do, but decides nothing: a repetition whose epoch did not move as it should, that was not
//! whole again without a human, or that lost acknowledged rows is told as a failed one, with what was lost, and the series
//! goes on. Each repetition is one JSON line, appended and flushed as soon as it is known, so that a long series can be done
//! in parts: what is there already is not measured again. Table, page and pictures are made from such lines alone.

mod isolated;
mod line;
mod machine;
mod page;
mod patroni;
mod picture;
mod repetition;
mod series;
mod slices;
mod system;
mod table;
mod targets;
mod timeline;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use serde_json::{Value, json};

use crate::faults::Fault;
use crate::world::World;
use patroni::{Fastest, Patroni, Recommended};
use system::Matriarch;

/// What is to be measured.
#[derive(Debug, Parser)]
pub(crate) struct Arguments {
    /// Which faults; all when left out.
    #[arg(long, value_delimiter = ',', value_enum)]
    faults: Vec<Fault>,
    /// How many repetitions of each, counting those in the file.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    reps: u32,
    /// Ours alone, or ours and another one.
    #[arg(long, value_enum, default_value_t = Peer::Matriarch)]
    peer: Peer,
    /// A change of the smallest manifest, as a merge patch in JSON, such as `{"spec":{"failover":{"detection":"1s"}}}`.
    #[arg(long, default_value = "{}")]
    settings: String,
    /// Changes an unrelated EndpointSlice every 500 ms meanwhile.
    #[arg(long)]
    slice_changes: bool,
    /// How many seconds a fault lasts that must change nothing, such as that of the API server.
    #[arg(long, default_value = "60", value_parser = seconds)]
    away: Duration,
    /// Where the JSON lines are appended.
    #[arg(long, default_value = "failover.jsonl")]
    out: PathBuf,
    /// Measures nothing: only prints the table of what is in the file, and makes the page and the pictures.
    #[arg(long)]
    table: bool,
    /// Makes the page of what is in the file, when it is through.
    #[arg(long)]
    page: Option<PathBuf>,
    /// Draws one SVG for each fault into this directory; the page shows them.
    #[arg(long)]
    picture: Option<PathBuf>,
}

/// Systems that can be put under fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Peer {
    /// Ours.
    Matriarch,
    /// Ours, then Patroni with its recommended and with its fastest legal settings, in the same rig and run.
    Patroni,
}

/// Needs no cluster: what was measured already is only told.
pub(crate) fn only_tells(arguments: &Arguments) -> bool {
    arguments.table
}

/// Measures, then tells.
pub(crate) async fn run(world: &World, arguments: &Arguments) -> Result<()> {
    let settings: Value = serde_json::from_str(&arguments.settings).context("--settings is no JSON")?;
    ensure!(settings.is_object(), "--settings must be a JSON object");
    let faults = if arguments.faults.is_empty() { Fault::ALL.to_vec() } else { arguments.faults.clone() };
    Box::pin(series::measure::<Matriarch>(world, &faults, &settings, arguments)).await?;
    if arguments.peer == Peer::Patroni {
        // A change of our manifest is none of its settings.
        let none = json!({});
        Box::pin(series::measure::<Patroni<Recommended>>(world, &faults, &none, arguments)).await?;
        Box::pin(series::measure::<Patroni<Fastest>>(world, &faults, &none, arguments)).await?;
    }
    tell(arguments)
}

/// Prints the table of the whole file, and makes what else was asked for.
pub(crate) fn tell(arguments: &Arguments) -> Result<()> {
    let found = line::read(&arguments.out)?;
    for warning in &found.warnings {
        eprintln!("warning: {warning}");
    }
    println!("{}", table::table(&found.lines));
    if let Some(table) = table::isolated(&found.lines) {
        println!("{table}");
    }
    if let Some(directory) = &arguments.picture {
        let count = picture::write(&found.lines, directory)?;
        println!("{count} pictures in {}", directory.display());
    }
    if let Some(file) = &arguments.page {
        let pictures = arguments.picture.as_deref().map(|pictures| beside(file, pictures));
        std::fs::write(file, page::page(&found.lines, pictures.as_deref()))
            .with_context(|| format!("write {}", file.display()))?;
        println!("{} written", file.display());
    }
    Ok(())
}

/// The directory as the page names it.
fn beside(page: &Path, directory: &Path) -> PathBuf {
    let relative = page.parent().and_then(|parent| directory.strip_prefix(parent).ok());
    relative.unwrap_or(directory).to_owned()
}

fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(seconds @ 1..=3600) => Ok(Duration::from_secs(seconds)),
        _ => Err("a number of seconds from 1 to 3600".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_names_pictures_from_where_it_is() {
        assert_eq!(beside(Path::new("docs/a.md"), Path::new("docs/a")), Path::new("a"));
        assert_eq!(beside(Path::new("a.md"), Path::new("pictures")), Path::new("pictures"));
        assert_eq!(beside(Path::new("docs/a.md"), Path::new("/tmp/a")), Path::new("/tmp/a"));
    }
}
