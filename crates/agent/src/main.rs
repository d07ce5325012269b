//! The entry point of `matriarch-agent`; everything is in the library.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    match agent::cli::Cli::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The one line a person sees, whether or not logging was set up.
            let _ = std::io::Write::write_fmt(&mut std::io::stderr(), format_args!("error: {error:#}\n"));
            ExitCode::FAILURE
        }
    }
}
