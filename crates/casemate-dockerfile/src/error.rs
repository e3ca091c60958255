//! What is wrong with a Dockerfile.

/// A Dockerfile that is no recipe of a template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("Dockerfile parse error on line {line}: {fault}")]
pub struct ParseError {
    /// Counted from 1; where the instruction begins.
    pub line: usize,
    pub fault: Fault,
}

/// What is wrong with one instruction.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("the file is larger than {} MiB", crate::TEXT_BYTES_MAX >> 20)]
    TooLong,
    #[error("unknown instruction: {0}")]
    UnknownInstruction(String),
    #[error("the directive '{0}' stands there twice")]
    DirectiveTwice(String),
    #[error("the escape character can be \\ or `, not '{0}'")]
    EscapeCharacter(String),
    #[error("there is no FROM")]
    NoFrom,
    #[error("a second FROM: builds in several stages are not supported")]
    SecondFrom,
    #[error("{0} stands before FROM")]
    BeforeFrom(&'static str),
    #[error("FROM wants an image, and no more than a name after AS")]
    FromArguments,
    #[error("{0} wants something after it")]
    NoArgument(&'static str),
    #[error("{0} wants exactly one thing after it")]
    NotOneArgument(&'static str),
    #[error("{0} wants sources and a destination")]
    NoDestination(&'static str),
    #[error("{0} wants a name and a value")]
    NoValue(&'static str),
    #[error("'{word}' is not NAME=VALUE")]
    NotAPair { word: String },
    #[error("{0} has an empty name")]
    EmptyName(&'static str),
    #[error("a list in JSON can hold strings only")]
    NotStrings,
    #[error("unknown flag: --{0}")]
    UnknownFlag(String),
    #[error("the flag --{0} stands there twice")]
    FlagTwice(String),
    #[error("the flag --{0} wants a value")]
    FlagWithoutValue(String),
    #[error("the flag --{name} is true or false, not '{value}'")]
    FlagNotBool { name: String, value: String },
    #[error("{0} --from is not supported, for there is one stage only")]
    FromStage(&'static str),
    #[error("ADD of the remote address '{0}' is not supported: use RUN with curl or git")]
    RemoteAdd(String),
    #[error("--chmod wants an octal mode such as 0755, not '{0}'")]
    Mode(String),
    #[error("a heredoc cannot be a destination")]
    HeredocDestination,
    #[error("the heredoc {0} has no text")]
    HeredocWithoutText(String),
    #[error("the heredoc {0} has no end")]
    HeredocWithoutEnd(String),
    #[error("a {0} quote is not closed")]
    Quote(&'static str),
    #[error("a ${{ is not closed: '{0}' is missing")]
    Brace(char),
    #[error("a ${{ holds no name")]
    Substitution,
    #[error("'{0}' is no modifier of a ${{NAME}}")]
    Modifier(String),
    #[error("substitutions are nested too deeply")]
    Nesting,
    #[error("{name} must be set: {reason}")]
    MustBeSet { name: String, reason: String },
    #[error("a value with its variables in it is too long")]
    ValueTooLong,
    #[error("a pattern cannot escape '{0}'")]
    PatternEscape(String),
}

impl Fault {
    pub(crate) fn at(self, line: usize) -> ParseError {
        ParseError { line, fault: self }
    }
}
