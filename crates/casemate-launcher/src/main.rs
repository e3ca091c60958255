//! The launcher as a program of its own, static and small. What it does is
//! [`casemate_namespaces::launcher`].
//!
//! Each sandbox costs two forks of it, and a fork copies what a program has written to and its
//! table of mappings, most of which the platform's large program had only because it is large. A
//! fork of this one is half as dear.

use std::process::ExitCode;

fn main() -> ExitCode {
    if let Err(error) = casemate_failpoint::arm_from_environment() {
        eprintln!("casemate: {error}");
        return ExitCode::FAILURE;
    }
    let code = casemate_namespaces::launcher::run();
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}
