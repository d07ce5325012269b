//! Every scenario brings forth exactly the transcript that stands in its file. `UPDATE=1` writes what it brings forth.

use std::path::Path;

#[test]
fn every_scenario_goes_as_written() {
    // In the package's directory, where cargo runs tests.
    let folder = Path::new("scenarios");
    let mut files: Vec<_> =
        std::fs::read_dir(folder).expect("scenarios").map(|entry| entry.expect("entry").path()).collect();
    files.sort();
    assert!(files.len() >= 20, "only {} scenarios", files.len());
    let mut differ = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file).expect("readable");
        let transcript = sim::script::transcript(&text).unwrap_or_else(|error| panic!("{file:?}: {error:#}"));
        // A scenario with a rule switched off shows what happens without it; all others are clean.
        let mutant = text.contains("> without ");
        assert_eq!(transcript.contains("VIOLATION"), mutant, "{file:?}:\n{transcript}");
        if transcript != text {
            if std::env::var_os("UPDATE").is_some() {
                std::fs::write(&file, transcript).expect("writable");
            } else {
                differ.push(file);
            }
        }
    }
    assert!(differ.is_empty(), "other transcripts, look and run again with UPDATE=1: {differ:?}");
}
