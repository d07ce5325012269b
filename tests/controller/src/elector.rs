//! The elector as a process of its own: what `matriarch-elector` does and nothing else.

use std::process::ExitCode;

fn main() -> ExitCode {
    elector::sidecar::main()
}
