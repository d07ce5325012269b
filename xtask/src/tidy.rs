//! House rules that a compiler does not check: what may depend on what, how long a file may be, that a module says
//! what it is for. Each rule returns its offenders, so that all are shown at once.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};

use crate::{command, this};

/// Lines that a source file may have without its tests.
const LONGEST: usize = 600;
/// A `main.rs` only chooses and reports; in lines.
const LONGEST_MAIN: usize = 40;
/// Directories with sources of ours.
const SOURCES: [&str; 3] = ["crates", "tests", "xtask/src"];
/// What a pure crate may depend on, tests aside.
const PURE: [(&str, &[&str]); 1] = [("crates/ha", &["serde", "serde_json", "thiserror"])];
/// What must not occur in the sources of a pure crate, tests aside: time, chance and the outside world.
const IMPURE: [&str; 9] = [
    "std::time::Instant",
    "std::time::SystemTime",
    "SystemTime::now",
    "Instant::now",
    "std::net",
    "std::fs",
    "std::thread",
    "std::env",
    "HashMap",
];
/// Crates that must not know each other.
const STRANGERS: [(&str, &[&str]); 4] = [
    ("crates/postgres", &["kube", "k8s-openapi", "kubernetes"]),
    ("crates/kubernetes", &["postgres", "tokio-postgres"]),
    ("crates/api", &["tokio", "kubernetes", "postgres", "ha"]),
    ("crates/pki", &["kube", "tokio", "kubernetes", "postgres", "api"]),
];

/// Checks house rules; with --clippy also what clippy and rustfmt say.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Also rustfmt and clippy, with every warning an error.
    #[arg(long)]
    clippy: bool,
}

/// Checks everything and prints every offender.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let mut well = true;
    for (rule, outcome) in house_rules(&this::tree()) {
        let offenders = outcome.with_context(|| rule.to_owned())?;
        for offender in &offenders {
            println!("{rule}: {offender}");
        }
        well &= offenders.is_empty();
    }
    if arguments.clippy {
        command::run("rustfmt", this::cargo(["fmt", "--all", "--check"]))?;
        command::run("clippy", clippy())?;
    }
    Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Clippy over everything, warnings as errors.
pub(crate) fn clippy() -> std::process::Command {
    this::cargo(["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"])
}

/// Every rule with its offenders.
pub(crate) fn house_rules(tree: &Path) -> Vec<(&'static str, Result<Vec<String>>)> {
    vec![
        ("a pure crate depends on nothing impure", pure_dependencies(tree)),
        ("a pure crate knows neither time nor the outside", pure_sources(tree)),
        ("worlds that do not know each other", strangers(tree)),
        ("files of at most 600 lines without tests", long_files(tree)),
        ("a main.rs of at most 40 lines", long_mains(tree)),
        ("every module says what it is for", undocumented(tree)),
        ("names without Manager, Helper or Utils", empty_names(tree)),
    ]
}

fn pure_dependencies(tree: &Path) -> Result<Vec<String>> {
    let mut offenders = Vec::new();
    for (directory, allowed) in PURE {
        for name in dependencies(&tree.join(directory))? {
            if !allowed.contains(&name.as_str()) {
                offenders.push(format!("{directory} depends on {name}"));
            }
        }
    }
    Ok(offenders)
}

fn strangers(tree: &Path) -> Result<Vec<String>> {
    let mut offenders = Vec::new();
    for (directory, forbidden) in STRANGERS {
        for name in dependencies(&tree.join(directory))? {
            if forbidden.contains(&name.as_str()) {
                // The definitions need kube's derive, which is why `api` is not on that list.
                offenders.push(format!("{directory} depends on {name}"));
            }
        }
    }
    Ok(offenders)
}

fn pure_sources(tree: &Path) -> Result<Vec<String>> {
    let mut offenders = Vec::new();
    for (directory, _) in PURE {
        for file in sources(&tree.join(directory).join("src"))? {
            let text = read(&file)?;
            for (number, line) in without_tests(&text).lines().enumerate() {
                let code = line.split("//").next().unwrap_or_default();
                if let Some(word) = IMPURE.into_iter().find(|word| code.contains(word)) {
                    offenders.push(format!("{}:{}: {word}", file.display(), number + 1));
                }
            }
        }
    }
    Ok(offenders)
}

fn long_mains(tree: &Path) -> Result<Vec<String>> {
    let mut offenders = Vec::new();
    for file in all_sources(tree)?.into_iter().filter(|file| file.ends_with("src/main.rs")) {
        let lines = read(&file)?.lines().count();
        if lines > LONGEST_MAIN {
            offenders.push(format!("{}: {lines} lines", file.display()));
        }
    }
    Ok(offenders)
}

fn long_files(tree: &Path) -> Result<Vec<String>> {
    let mut offenders = Vec::new();
    for file in all_sources(tree)? {
        let lines = without_tests(&read(&file)?).lines().count();
        if lines > LONGEST {
            offenders.push(format!("{}: {lines} lines", file.display()));
        }
    }
    Ok(offenders)
}

fn undocumented(tree: &Path) -> Result<Vec<String>> {
    let mut offenders = Vec::new();
    for file in all_sources(tree)? {
        if !read(&file)?.trim_start().starts_with("//!") {
            offenders.push(file.display().to_string());
        }
    }
    Ok(offenders)
}

fn empty_names(tree: &Path) -> Result<Vec<String>> {
    let mut offenders = Vec::new();
    for file in all_sources(tree)? {
        for line in read(&file)?.lines() {
            let mut words = line.split(|c: char| !c.is_alphanumeric() && c != '_');
            while let Some(word) = words.next() {
                if ["struct", "enum", "trait", "mod"].contains(&word)
                    && let Some(name) = words.next()
                    && ["Manager", "Helper", "Utils", "helper", "helpers", "utils", "util"]
                        .into_iter()
                        .any(|empty| name.ends_with(empty))
                    // Kubernetes' own word for who owns a field.
                    && name != "FieldManager"
                    && !line.trim_start().starts_with("//")
                {
                    offenders.push(format!("{}: {name}", file.display()));
                }
            }
        }
    }
    Ok(offenders)
}

/// The names in `[dependencies]` of a crate.
fn dependencies(directory: &Path) -> Result<Vec<String>> {
    Ok(dependency_names(&read(&directory.join("Cargo.toml"))?))
}

fn dependency_names(manifest: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut inside = false;
    for line in manifest.lines().map(str::trim) {
        if let Some(table) = line.strip_prefix('[') {
            inside = table == "dependencies]";
            if let Some(name) = table.strip_prefix("dependencies.") {
                names.push(name.trim_end_matches(']').to_owned());
            }
        } else if inside && !line.is_empty() && !line.starts_with('#') {
            let name = line.split(['.', '=', ' ']).next().unwrap_or_default();
            names.push(name.to_owned());
        }
    }
    names
}

/// A file's text up to its tests, which come last.
fn without_tests(text: &str) -> &str {
    match text.find("\n#[cfg(test)]\nmod tests {") {
        Some(end) => text.get(..end).unwrap_or(text),
        None => text,
    }
}

/// Source files of ours that are not tests by their place.
fn all_sources(tree: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for directory in SOURCES {
        for file in sources(&tree.join(directory))? {
            let within = file.strip_prefix(tree).unwrap_or(&file);
            // `crates/x/tests/…` and `x/tests.rs` hold tests only; the crates below `tests/` are sources.
            let test = within.components().skip(1).any(|part| part.as_os_str() == "tests")
                || within.file_name().is_some_and(|name| name == "tests.rs");
            if !test {
                files.push(within.to_owned());
            }
        }
    }
    let files = files.into_iter().map(|file| tree.join(file)).collect();
    Ok(files)
}

fn sources(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut pending = vec![directory.to_owned()];
    while let Some(directory) = pending.pop() {
        let entries = fs::read_dir(&directory).with_context(|| format!("listing {}", directory.display()))?;
        for entry in entries {
            let path = entry.with_context(|| format!("listing {}", directory.display()))?.path();
            if path.is_dir() {
                pending.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

fn read(file: &Path) -> Result<String> {
    fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_are_those_of_the_crate_itself() {
        let manifest = "[package]\nname = \"x\"\n\n[dependencies]\nserde.workspace = true\nkube = { version = \"5\" }\n\
                        # a remark\n\n[dependencies.tokio]\nversion = \"1\"\n\n[dev-dependencies]\nrand.workspace = true\n";
        assert_eq!(dependency_names(manifest), ["serde", "kube", "tokio"]);
    }

    #[test]
    fn tests_do_not_count() {
        assert_eq!(without_tests("a\nb\n#[cfg(test)]\nmod tests {\n}\n"), "a\nb");
        assert_eq!(without_tests("a\nb\n"), "a\nb\n");
    }

    #[test]
    fn each_rule_has_something_that_breaks_it() {
        let tree = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = tree.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("crates/ha/Cargo.toml", "[dependencies]\ntokio = \"1\"\n");
        write("crates/ha/src/lib.rs", "use std::time::Instant;\nstruct LeaseManager;\n");
        write("crates/postgres/Cargo.toml", "[dependencies]\nkube = \"5\"\n");
        for name in ["kubernetes", "api", "pki"] {
            write(&format!("crates/{name}/Cargo.toml"), "[dependencies]\n");
        }
        write("tests/e2e/src/main.rs", &format!("//! Long.\n{}", "\n".repeat(LONGEST)));
        write("xtask/src/main.rs", "//! Good.\n");
        for (rule, outcome) in house_rules(tree.path()) {
            assert_eq!(outcome.unwrap().len(), 1, "{rule}");
        }
    }
}
