//! Instructions become steps.

use crate::error::{Fault, ParseError};
use crate::heredoc;
use crate::instruction::{Args, Instruction, Keyword};
use crate::lines::File;
use crate::quote;
use crate::recipe::{Action, Recipe, Step, Warning};
use crate::shell::{self, Variables};

mod flags;

use flags::Flags;

/// The ready command of a start command of which nobody said when it is ready.
pub const READY_COMMAND: &str = "sleep 20";

pub(crate) fn convert(file: File) -> Result<Recipe, ParseError> {
    let mut froms = file
        .instructions
        .iter()
        .filter(|instruction| instruction.keyword == Keyword::From);
    let from = froms.next().ok_or(Fault::NoFrom.at(file.lines))?;
    if let Some(second) = froms.next() {
        return Err(Fault::SecondFrom.at(second.line));
    }
    let mut converter = Converter::new(&file);
    let image = converter.from(from).map_err(|fault| fault.at(from.line))?;
    converter.step(from.line, Action::User("root".to_owned()));
    converter.step(from.line, Action::Workdir("/".to_owned()));
    for instruction in &file.instructions {
        let keyword = instruction.keyword;
        if instruction.line < from.line && keyword != Keyword::Arg {
            return Err(Fault::BeforeFrom(keyword.name()).at(instruction.line));
        }
        converter
            .instruction(instruction)
            .map_err(|fault| fault.at(instruction.line))?;
    }
    Ok(converter.finish(image, &file))
}

struct Converter {
    escape: char,
    steps: Vec<Step>,
    warnings: Vec<Warning>,
    variables: Variables,
    command: Option<Command>,
    entrypoint: Option<Command>,
}

/// What `CMD` or `ENTRYPOINT` says.
enum Command {
    Words(Vec<String>),
    Shell(String),
}

impl Converter {
    fn new(file: &File) -> Self {
        Self {
            escape: file.escape,
            steps: Vec::new(),
            warnings: file.warnings.clone(),
            variables: Variables::new(),
            command: None,
            entrypoint: None,
        }
    }

    fn step(&mut self, line: usize, action: Action) {
        self.steps.push(Step { line, action });
    }

    fn instruction(&mut self, instruction: &Instruction) -> Result<(), Fault> {
        let line = instruction.line;
        match instruction.keyword {
            Keyword::From => Ok(()),
            Keyword::Run => self.run(instruction),
            Keyword::Copy | Keyword::Add => self.copy(instruction),
            Keyword::Workdir => {
                let path = self.only_argument(instruction)?;
                self.step(line, Action::Workdir(path));
                Ok(())
            }
            Keyword::User => {
                let user = self.only_argument(instruction)?;
                self.step(line, Action::User(user));
                Ok(())
            }
            Keyword::Env => self.env(instruction),
            Keyword::Arg => self.arg(instruction),
            Keyword::Cmd => {
                self.command = self.start(instruction)?;
                Ok(())
            }
            Keyword::Entrypoint => {
                self.entrypoint = self.start(instruction)?;
                Ok(())
            }
            Keyword::Expose
            | Keyword::Healthcheck
            | Keyword::Label
            | Keyword::Maintainer
            | Keyword::Onbuild
            | Keyword::Shell
            | Keyword::Stopsignal
            | Keyword::Volume => {
                let text = format!("{} has no effect", instruction.keyword.name());
                self.warnings.push(Warning { line, text });
                Ok(())
            }
        }
    }

    fn unquote(&self, word: &str) -> Result<String, Fault> {
        shell::unquote(word, self.escape)
    }

    fn flags(&mut self, instruction: &Instruction) -> Result<Flags, Fault> {
        let flags = Flags::read(instruction)?;
        for name in &flags.ignored {
            self.warnings.push(Warning {
                line: instruction.line,
                text: format!("{} --{name} has no effect", instruction.keyword.name()),
            });
        }
        Ok(flags)
    }

    fn from(&mut self, instruction: &Instruction) -> Result<String, Fault> {
        self.flags(instruction)?;
        let Args::Words(words) = &instruction.args else {
            return Err(Fault::FromArguments);
        };
        match &words[..] {
            [image] => self.unquote(image),
            [image, word, _] if word.eq_ignore_ascii_case("as") => self.unquote(image),
            _ => Err(Fault::FromArguments),
        }
    }

    fn run(&mut self, instruction: &Instruction) -> Result<(), Fault> {
        self.flags(instruction)?;
        let nothing = Fault::NoArgument(instruction.keyword.name());
        let command = match &instruction.args {
            Args::Json(words) if words.is_empty() => return Err(nothing),
            Args::Json(words) => quote::join(words),
            Args::Line(line) if instruction.heredocs.is_empty() => line.clone(),
            Args::Line(line) => heredoc::run(line, &instruction.heredocs)?,
            _ => return Err(nothing),
        };
        let user = None;
        self.step(instruction.line, Action::Run { command, user });
        Ok(())
    }

    fn copy(&mut self, instruction: &Instruction) -> Result<(), Fault> {
        let (line, keyword) = (instruction.line, instruction.keyword);
        let flags = self.flags(instruction)?;
        let (Args::Words(words) | Args::Json(words)) = &instruction.args else {
            return Err(Fault::NoDestination(keyword.name()));
        };
        let (destination, sources) = match words.split_last() {
            Some((destination, sources)) if !sources.is_empty() => (destination, sources),
            _ => return Err(Fault::NoDestination(keyword.name())),
        };
        if flags.from.is_some() {
            return Err(Fault::FromStage(keyword.name()));
        }
        let owner = flags.chown.map(|owner| self.unquote(&owner)).transpose()?;
        let mode = flags.chmod.map(|mode| self.mode(&mode)).transpose()?;
        if heredoc::marker(destination)?.is_some() {
            return Err(Fault::HeredocDestination);
        }
        let destination = self.unquote(destination)?;
        for source in sources {
            if let Some(mark) = heredoc::marker(source)? {
                // Of two with one name the later counts.
                let mut named = instruction.heredocs.iter().rev();
                let text = named.find(|heredoc| heredoc.name == mark.name);
                let text = text.ok_or(Fault::HeredocWithoutText(mark.name))?;
                let command = heredoc::copy(text, &destination, owner.as_deref(), mode)?;
                // A copy is root's, whoever is the user at that point.
                let user = Some("root".to_owned());
                self.step(line, Action::Run { command, user });
                continue;
            }
            let source = self.unquote(source)?;
            if keyword == Keyword::Add && is_remote(&source) {
                return Err(Fault::RemoteAdd(source));
            }
            let action = Action::Copy {
                source,
                destination: destination.clone(),
                owner: owner.clone(),
                mode,
            };
            self.step(line, action);
        }
        Ok(())
    }

    /// The one place that needs the values of variables: a mode goes to the wire as a number.
    fn mode(&self, text: &str) -> Result<u32, Fault> {
        let mode = shell::expand(text, self.escape, &self.variables)?;
        let octal = |digit: char| ('0'..='7').contains(&digit);
        let number = match (3..=4).contains(&mode.len()) && mode.chars().all(octal) {
            true => u32::from_str_radix(&mode, 8).ok(),
            false => None,
        };
        number.ok_or(Fault::Mode(mode))
    }

    fn env(&mut self, instruction: &Instruction) -> Result<(), Fault> {
        self.flags(instruction)?;
        match &instruction.args {
            Args::Pairs(pairs) if !pairs.is_empty() => self.set(instruction, pairs),
            _ => Err(Fault::NoArgument("ENV")),
        }
    }

    fn arg(&mut self, instruction: &Instruction) -> Result<(), Fault> {
        self.flags(instruction)?;
        let words = match &instruction.args {
            Args::Words(words) if !words.is_empty() => words,
            _ => return Err(Fault::NoArgument("ARG")),
        };
        let pair = |word: &String| {
            let (name, value) = word.split_once('=').unwrap_or((word, ""));
            (name.to_owned(), value.to_owned())
        };
        let pairs: Vec<_> = words.iter().map(pair).collect();
        self.set(instruction, &pairs)
    }

    fn set(&mut self, instruction: &Instruction, pairs: &[(String, String)]) -> Result<(), Fault> {
        let mut set: Vec<(String, String)> = Vec::new();
        for (name, raw) in pairs {
            let name = self.unquote(name)?;
            if name.is_empty() {
                return Err(Fault::EmptyName(instruction.keyword.name()));
            }
            let value = self.unquote(raw)?;
            let known = shell::expand(raw, self.escape, &self.variables)?;
            self.variables.insert(name.clone(), known);
            match set.iter_mut().find(|(set, _)| *set == name) {
                Some(earlier) => earlier.1 = value,
                None => set.push((name, value)),
            }
        }
        if !set.is_empty() {
            self.step(instruction.line, Action::Env(set));
        }
        Ok(())
    }

    fn only_argument(&mut self, instruction: &Instruction) -> Result<String, Fault> {
        self.flags(instruction)?;
        match &instruction.args {
            Args::Line(line) => self.unquote(line),
            _ => Err(Fault::NotOneArgument(instruction.keyword.name())),
        }
    }

    fn start(&mut self, instruction: &Instruction) -> Result<Option<Command>, Fault> {
        self.flags(instruction)?;
        Ok(match &instruction.args {
            Args::Json(words) => Some(Command::Words(words.clone())),
            Args::Line(line) => Some(Command::Shell(line.clone())),
            _ => None,
        })
    }

    fn finish(mut self, from: String, file: &File) -> Recipe {
        let said = |keyword| {
            let mut all = file.instructions.iter();
            all.any(|instruction| instruction.keyword == keyword)
        };
        if !said(Keyword::User) {
            self.step(file.lines, Action::User("user".to_owned()));
        }
        if !said(Keyword::Workdir) {
            self.step(file.lines, Action::Workdir("/home/user".to_owned()));
        }
        let start = started(self.entrypoint, self.command);
        let start = start.filter(|command| !command.trim().is_empty());
        Recipe {
            from,
            steps: self.steps,
            ready: start.is_some().then(|| READY_COMMAND.to_owned()),
            start,
            warnings: self.warnings,
        }
    }
}

/// Docker's rules: a command is what an entrypoint of words gets as its arguments, and means nothing
/// beside one for the shell.
fn started(entrypoint: Option<Command>, command: Option<Command>) -> Option<String> {
    match (entrypoint, command) {
        (Some(Command::Words(mut words)), command) => {
            match command {
                Some(Command::Words(more)) => words.extend(more),
                Some(Command::Shell(line)) => {
                    words.extend(["/bin/sh".to_owned(), "-c".to_owned(), line]);
                }
                None => {}
            }
            Some(quote::join(&words))
        }
        (Some(Command::Shell(line)), _) | (None, Some(Command::Shell(line))) => Some(line),
        (None, Some(Command::Words(words))) => Some(quote::join(&words)),
        (None, None) => None,
    }
}

/// `scheme://…`
fn is_remote(source: &str) -> bool {
    let Some((scheme, _)) = source.split_once("://") else {
        return false;
    };
    let mut letters = scheme.chars();
    letters
        .next()
        .is_some_and(|first| first.is_ascii_alphabetic())
        && letters.all(|letter| letter.is_ascii_alphanumeric() || "+.-".contains(letter))
}
