//! The one helper program that rules need: `nft`. Run at start and at the end, never for a create.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::NetError;

/// How much of a program's complaint goes into an error.
const MESSAGE_CHARS_MAX: usize = 500;

/// Loads a rule text as one transaction.
pub(crate) fn nft_load(text: &str) -> Result<(), NetError> {
    run("nft", &["-f", "-"], text).map(drop)
}

/// Runs a program with `input` and answers what it wrote.
pub(crate) fn run(program: &'static str, args: &[&str], input: &str) -> Result<Vec<u8>, NetError> {
    let missing = |source| NetError::ToolMissing { program, source };
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(missing)?;
    // The programs read all of their input before they write more than a line. One that ends early
    // says why on its standard error, so a broken pipe is not what is reported.
    if let Some(mut stdin) = child.stdin.take() {
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().map_err(missing)?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let message = String::from_utf8_lossy(&output.stderr);
    Err(NetError::ToolFailed {
        program,
        message: message.trim().chars().take(MESSAGE_CHARS_MAX).collect(),
    })
}
