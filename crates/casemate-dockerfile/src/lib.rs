//! A Dockerfile as the recipe of a template, by the rules of E2B's Python SDK 2.63.0, so that the
//! same file builds the same template by the SDK and by `casemate template build`, out of the same
//! cached layers. The wire form of the steps is E2B's; the commands that stand for heredocs and exec
//! forms are word for word what that SDK makes of them.
//!
//! Owns the language: comments, directives, continuations, quoting, heredocs, and what each
//! instruction becomes. What cannot be built is an error with its line, what is passed over a warning
//! with its line. Must not know files or networks: the text comes from the caller, and variables stay
//! as they are written, for it is the builder that knows their values.

mod convert;
mod error;
mod heredoc;
mod instruction;
mod lines;
mod pattern;
mod quote;
mod recipe;
mod shell;
mod words;

pub use convert::READY_COMMAND;
pub use error::{Fault, ParseError};
pub use recipe::{Action, Recipe, Step, Warning};

/// The largest text that is read, in bytes. Real ones have a few hundred lines.
pub const TEXT_BYTES_MAX: usize = 4 << 20;

/// Reads a Dockerfile.
///
/// # Errors
/// What it cannot be a template of, with the line.
pub fn parse(text: &str) -> Result<Recipe, ParseError> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(Fault::TooLong.at(1));
    }
    let file = lines::read(text)?;
    convert::convert(file)
}
