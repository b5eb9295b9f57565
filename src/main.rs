//! The `restyle` command: parse, run, exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    restyle::cli::main()
}
