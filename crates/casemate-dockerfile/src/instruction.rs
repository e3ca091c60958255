//! Instructions, before it is known what they become.

use crate::error::Fault;
use crate::heredoc::Heredoc;
use crate::words::{is_blank, split_blank, split_words};

/// One instruction of the file.
#[derive(Debug)]
pub(crate) struct Instruction {
    pub(crate) keyword: Keyword,
    /// Where it begins.
    pub(crate) line: usize,
    /// `--name=value`, without quotes.
    pub(crate) flags: Vec<String>,
    pub(crate) args: Args,
    pub(crate) heredocs: Vec<Heredoc>,
}

/// What follows an instruction's name and flags.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Args {
    Nothing,
    /// The line as it is.
    Line(String),
    /// A list in JSON: what docker calls the exec form.
    Json(Vec<String>),
    /// Words with their quotes and escapes.
    Words(Vec<String>),
    /// Names and values with their quotes and escapes.
    Pairs(Vec<(String, String)>),
}

macro_rules! keywords {
    ($($keyword:ident $name:literal,)*) => {
        /// The instructions that docker knows.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Keyword { $($keyword,)* }

        impl Keyword {
            /// In capitals.
            pub(crate) fn name(self) -> &'static str {
                match self { $(Self::$keyword => $name,)* }
            }

            fn of(upper: &str) -> Option<Self> {
                match upper { $($name => Some(Self::$keyword),)* _ => None }
            }
        }
    };
}

keywords! {
    Add "ADD",
    Arg "ARG",
    Cmd "CMD",
    Copy "COPY",
    Entrypoint "ENTRYPOINT",
    Env "ENV",
    Expose "EXPOSE",
    From "FROM",
    Healthcheck "HEALTHCHECK",
    Label "LABEL",
    Maintainer "MAINTAINER",
    Onbuild "ONBUILD",
    Run "RUN",
    Shell "SHELL",
    Stopsignal "STOPSIGNAL",
    User "USER",
    Volume "VOLUME",
    Workdir "WORKDIR",
}

impl Keyword {
    pub(crate) fn parse(word: &str) -> Result<Self, Fault> {
        Self::of(&word.to_uppercase()).ok_or_else(|| Fault::UnknownInstruction(word.to_owned()))
    }

    pub(crate) fn takes_heredocs(self) -> bool {
        matches!(self, Self::Add | Self::Copy | Self::Run)
    }

    /// Reads what follows it; also of what is passed over, so that a fault is one everywhere.
    pub(crate) fn args(self, rest: &str, escape: char) -> Result<Args, Fault> {
        if rest.is_empty() {
            return Ok(Args::Nothing);
        }
        let line = || Args::Line(rest.to_owned());
        Ok(match self {
            Self::Cmd | Self::Entrypoint | Self::Run | Self::Shell => {
                json(rest)?.unwrap_or_else(line)
            }
            Self::Add | Self::Copy => {
                json(rest)?.unwrap_or_else(|| Args::Words(split_words(rest, escape)))
            }
            Self::Volume => json(rest)?.unwrap_or_else(line),
            Self::Healthcheck => {
                // After the kind of check comes a command.
                let (_, command) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
                json(command.trim_start())?.unwrap_or_else(line)
            }
            Self::Arg => Args::Words(split_words(rest, escape)),
            Self::Env | Self::Label => Args::Pairs(self.pairs(rest, escape)?),
            Self::From => Args::Words(split_blank(rest)),
            Self::Expose
            | Self::Maintainer
            | Self::Onbuild
            | Self::Stopsignal
            | Self::User
            | Self::Workdir => line(),
        })
    }

    /// `A=1 B=2`, or the old `A 1`, whose value is the rest of the line.
    fn pairs(self, rest: &str, escape: char) -> Result<Vec<(String, String)>, Fault> {
        let words = split_words(rest, escape);
        match words.first() {
            None => return Ok(Vec::new()),
            Some(first) if !first.contains('=') => {
                let (name, value) = rest
                    .split_once(is_blank)
                    .ok_or(Fault::NoValue(self.name()))?;
                let value = value.trim_start_matches(is_blank);
                return Ok(vec![(name.to_owned(), value.to_owned())]);
            }
            Some(_) => {}
        }
        let pair = |word: String| match word.split_once('=') {
            Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
            None => Err(Fault::NotAPair { word }),
        };
        words.into_iter().map(pair).collect()
    }
}

/// `None`: it is no list, and so means what it says.
fn json(text: &str) -> Result<Option<Args>, Fault> {
    let text = text.trim_start();
    if !text.starts_with('[') {
        return Ok(None);
    }
    let Ok(list) = serde_json::from_str::<Vec<serde_json::Value>>(text) else {
        return Ok(None);
    };
    let string = |item| match item {
        serde_json::Value::String(text) => Ok(text),
        _ => Err(Fault::NotStrings),
    };
    let strings: Result<_, _> = list.into_iter().map(string).collect();
    strings.map(|strings| Some(Args::Json(strings)))
}
