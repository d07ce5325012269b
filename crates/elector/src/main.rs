//! `matriarch-elector`.

use std::process::ExitCode;

fn main() -> ExitCode {
    elector::sidecar::main()
}
