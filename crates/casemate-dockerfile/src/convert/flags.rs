//! Flags of instructions: which there are, and which count.

use crate::error::Fault;
use crate::instruction::{Instruction, Keyword};

/// What the flags of one instruction say.
#[derive(Debug, Default)]
pub(crate) struct Flags {
    pub(crate) chown: Option<String>,
    pub(crate) chmod: Option<String>,
    pub(crate) from: Option<String>,
    /// Names of those without effect.
    pub(crate) ignored: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Counts,
    Ignored,
    IgnoredBool,
}

impl Flags {
    pub(crate) fn read(instruction: &Instruction) -> Result<Self, Fault> {
        let mut flags = Self::default();
        for flag in &instruction.flags {
            let flag = flag.strip_prefix("--").unwrap_or(flag);
            let (name, value) = match flag.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (flag, None),
            };
            let kind = kind(instruction.keyword, name);
            let kind = kind.ok_or_else(|| Fault::UnknownFlag(name.to_owned()))?;
            if kind == Kind::IgnoredBool {
                if !matches!(value, None | Some("" | "true" | "false")) {
                    return Err(Fault::FlagNotBool {
                        name: name.to_owned(),
                        value: value.unwrap_or_default().to_owned(),
                    });
                }
            } else if value.is_none() {
                return Err(Fault::FlagWithoutValue(name.to_owned()));
            }
            flags.set(kind, name, value.unwrap_or_default())?;
        }
        Ok(flags)
    }

    fn set(&mut self, kind: Kind, name: &str, value: &str) -> Result<(), Fault> {
        let place = match name {
            _ if kind != Kind::Counts => {
                self.ignored.push(name.to_owned());
                return Ok(());
            }
            "chown" => &mut self.chown,
            "chmod" => &mut self.chmod,
            _ => &mut self.from,
        };
        match place.replace(value.to_owned()) {
            None => Ok(()),
            Some(_) => Err(Fault::FlagTwice(name.to_owned())),
        }
    }
}

/// `None`: the instruction has no such flag.
fn kind(keyword: Keyword, name: &str) -> Option<Kind> {
    let copies = matches!(keyword, Keyword::Copy | Keyword::Add);
    Some(match (keyword, name) {
        (_, "chown" | "chmod" | "from") if copies => Kind::Counts,
        (_, "link" | "parents") if copies => Kind::IgnoredBool,
        (_, "exclude") if copies => Kind::Ignored,
        (Keyword::Add, "keep-git-dir" | "unpack") => Kind::IgnoredBool,
        (Keyword::Add, "checksum") => Kind::Ignored,
        (Keyword::Run, "mount" | "network" | "security" | "device") => Kind::Ignored,
        (Keyword::From, "platform") => Kind::Ignored,
        _ => return None,
    })
}
