//! Lines of the file put together to instructions.
//!
//! ```text
//! lines ──▶ directives, while they last ──▶ comments drop out ──▶ continued lines are joined
//!                                                 ──▶ one instruction ──▶ lines of its heredocs
//! ```

use std::collections::HashSet;

use crate::error::{Fault, ParseError};
use crate::heredoc::{self, Heredoc};
use crate::instruction::{Args, Instruction, Keyword};
use crate::recipe::Warning;
use crate::words::{is_blank, split_flags};

/// What stands in the file.
#[derive(Debug)]
pub(crate) struct File {
    pub(crate) instructions: Vec<Instruction>,
    pub(crate) escape: char,
    pub(crate) lines: usize,
    pub(crate) warnings: Vec<Warning>,
}

pub(crate) fn read(text: &str) -> Result<File, ParseError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut reader = Reader {
        lines: text.split_inclusive('\n'),
        number: 0,
        directives: Directives::default(),
        warnings: Vec::new(),
    };
    let mut instructions = Vec::new();
    while let Some(instruction) = reader.instruction()? {
        instructions.push(instruction);
    }
    Ok(File {
        instructions,
        escape: reader.directives.escape(),
        lines: reader.number.max(1),
        warnings: reader.warnings,
    })
}

struct Reader<'a> {
    lines: std::str::SplitInclusive<'a, char>,
    /// Of the line that was read last.
    number: usize,
    directives: Directives,
    warnings: Vec<Warning>,
}

impl<'a> Reader<'a> {
    /// The next line with its end.
    fn line(&mut self) -> Option<&'a str> {
        let line = self.lines.next()?;
        self.number += 1;
        Some(line)
    }

    fn instruction(&mut self) -> Result<Option<Instruction>, ParseError> {
        loop {
            let Some(raw) = self.line() else {
                return Ok(None);
            };
            let line = trim_end(raw).trim_start();
            self.directives
                .see(line)
                .map_err(|fault| fault.at(self.number))?;
            let line = if line.starts_with('#') { "" } else { line };
            let start = self.number;
            let (begun, continues) = self.directives.continued(line);
            if begun.is_empty() && !continues {
                continue;
            }
            let whole = self.rest_of(begun, continues)?;
            let instruction = self.finish(&whole, start);
            return instruction.map(Some).map_err(|fault| fault.at(start));
        }
    }

    /// The instruction that begins so, with the lines that continue it.
    fn rest_of(&mut self, begun: &str, mut continues: bool) -> Result<String, ParseError> {
        let mut whole = begun.to_owned();
        let mut skipped_empty = false;
        while continues {
            let Some(raw) = self.line() else {
                break;
            };
            let line = trim_end(raw);
            self.directives
                .see(line)
                .map_err(|fault| fault.at(self.number))?;
            let inner = line.trim_start();
            if inner.is_empty() {
                skipped_empty = true;
            } else if !inner.starts_with('#') {
                let (more, goes_on) = self.directives.continued(line);
                whole.push_str(more);
                continues = goes_on;
            }
        }
        if skipped_empty {
            self.warnings.push(Warning {
                line: self.number,
                text: "an empty line inside a continued instruction was passed over".to_owned(),
            });
        }
        Ok(whole)
    }

    fn finish(&mut self, whole: &str, start: usize) -> Result<Instruction, Fault> {
        let escape = self.directives.escape();
        let whole = whole.trim();
        let (word, rest) = whole.split_once(is_blank).unwrap_or((whole, ""));
        let keyword = Keyword::parse(word)?;
        let (flags, rest) = split_flags(rest, escape);
        let args = keyword.args(rest, escape)?;
        let is_json = matches!(args, Args::Json(_));
        let mut heredocs = match keyword.takes_heredocs() && !is_json {
            true => heredoc::markers(whole)?,
            false => Vec::new(),
        };
        for heredoc in &mut heredocs {
            self.read_heredoc(heredoc)?;
        }
        Ok(Instruction {
            keyword,
            line: start,
            flags,
            args,
            heredocs,
        })
    }

    fn read_heredoc(&mut self, heredoc: &mut Heredoc) -> Result<(), Fault> {
        while let Some(raw) = self.line() {
            let line = trim_end(raw);
            let line = match heredoc.strips_tabs {
                true => line.trim_start_matches('\t'),
                false => line,
            };
            if line == heredoc.name {
                return Ok(());
            }
            heredoc.text.push_str(raw);
        }
        Err(Fault::HeredocWithoutEnd(heredoc.name.clone()))
    }
}

fn trim_end(line: &str) -> &str {
    line.trim_end_matches(['\r', '\n'])
}

/// The comments at the file's beginning that say how it is to be read.
#[derive(Debug)]
struct Directives {
    escape: char,
    /// The first line that is none ends them.
    over: bool,
    seen: HashSet<String>,
}

impl Default for Directives {
    fn default() -> Self {
        Self {
            escape: '\\',
            over: false,
            seen: HashSet::new(),
        }
    }
}

impl Directives {
    fn escape(&self) -> char {
        self.escape
    }

    fn see(&mut self, line: &str) -> Result<(), Fault> {
        if self.over {
            return Ok(());
        }
        let Some((name, value)) = directive(line) else {
            self.over = true;
            return Ok(());
        };
        if !self.seen.insert(name.clone()) {
            return Err(Fault::DirectiveTwice(name));
        }
        if name == "escape" {
            self.escape = match value {
                "\\" => '\\',
                "`" => '`',
                _ => return Err(Fault::EscapeCharacter(value.to_owned())),
            };
        }
        Ok(())
    }

    /// The line without what continues it, and whether it is continued: by an escape character at
    /// its end that is not escaped itself.
    fn continued<'a>(&self, line: &'a str) -> (&'a str, bool) {
        let before = line.trim_end_matches([' ', '\t']);
        match before.strip_suffix(self.escape) {
            Some(begun) if !begun.ends_with(self.escape) => (begun, true),
            _ => (line, false),
        }
    }
}

/// `# name = value` of a name that is known.
fn directive(line: &str) -> Option<(String, &str)> {
    let (name, value) = line.strip_prefix('#')?.split_once('=')?;
    let (name, value) = (name.trim().to_lowercase(), value.trim());
    let known = ["syntax", "escape", "check"].contains(&&*name);
    (known && !value.is_empty()).then_some((name, value))
}
