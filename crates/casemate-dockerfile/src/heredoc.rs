//! Texts in the file: found by their marks, and made into commands.

use crate::error::Fault;
use crate::quote::quote;
use crate::shell::{self, DEPTH_MAX, Modifier};

/// A text of an instruction's own, after it.
#[derive(Debug, Clone)]
pub(crate) struct Heredoc {
    pub(crate) name: String,
    /// With the ends of its lines.
    pub(crate) text: String,
    /// `<<-`: tabs that lines begin with do not count.
    pub(crate) strips_tabs: bool,
    /// Its name is not quoted, and so variables in it count.
    pub(crate) expands: bool,
}

/// The marks on a line, in order. A line whose quotes do not close has none: it is not ours to judge
/// what its shell takes it for.
pub(crate) fn markers(line: &str) -> Result<Vec<Heredoc>, Fault> {
    if !line.contains("<<") {
        return Ok(Vec::new());
    }
    let Ok(words) = shell::raw_words(line) else {
        return Ok(Vec::new());
    };
    let marks = words.iter().map(|word| marker(word));
    marks.filter_map(Result::transpose).collect()
}

/// `<<NAME`, `<<-NAME`, `3<<NAME`; its text is not known yet.
pub(crate) fn marker(word: &str) -> Result<Option<Heredoc>, Fault> {
    let word = word.trim_start_matches(|letter: char| letter.is_ascii_digit());
    let Some(name) = word.strip_prefix("<<") else {
        return Ok(None);
    };
    let (strips_tabs, name) = match name.strip_prefix('-') {
        Some(name) => (true, name),
        None => (false, name),
    };
    let name = name.trim_start_matches(|letter: char| letter.is_ascii_whitespace());
    if name.is_empty() || name.contains('<') {
        return Ok(None);
    }
    let plain = shell::words(name, false)?;
    let [plain] = &plain[..] else {
        return Ok(None);
    };
    let quotes = |text: &str| text.matches(['\'', '"']).count();
    let raw: usize = shell::words(name, true)?.iter().map(|w| quotes(w)).sum();
    Ok(Some(Heredoc {
        expands: raw == quotes(plain),
        name: plain.clone(),
        text: String::new(),
        strips_tabs,
    }))
}

impl Heredoc {
    fn stripped(&self) -> String {
        if !self.strips_tabs {
            return self.text.clone();
        }
        let lines = self.text.split_inclusive('\n');
        lines.map(|line| line.trim_start_matches('\t')).collect()
    }

    /// A name for the end of a shell's heredoc that does not stand in the text.
    fn terminator(&self, text: &str) -> String {
        let safe = |letter: char| {
            if letter.is_ascii_alphanumeric() {
                letter
            } else {
                '_'
            }
        };
        let safe: String = self.name.chars().map(safe).collect();
        let mut terminator = format!("E2B_HEREDOC_{safe}");
        while text.contains(&terminator) {
            terminator.push('_');
        }
        terminator
    }
}

/// The command of a `RUN` with heredocs.
pub(crate) fn run(line: &str, heredocs: &[Heredoc]) -> Result<String, Fault> {
    if let [heredoc] = heredocs
        && marker(line.trim())?.is_some()
    {
        return Ok(script(heredoc));
    }
    // A part of a longer command is its shell's.
    let mut command = line.to_owned();
    for heredoc in heredocs {
        command += &format!("\n{}{}", heredoc.text, heredoc.name);
    }
    Ok(command)
}

/// A heredoc that is the command itself: for the shell, or for whom its first line names.
fn script(heredoc: &Heredoc) -> String {
    let text = heredoc.stripped();
    if !text.starts_with("#!") {
        return text;
    }
    let script = quote(&format!("/tmp/{}", heredoc.name));
    let terminator = heredoc.terminator(&text);
    let text = ended(text);
    format!(
        "cat <<'{terminator}' >{script}\n{text}{terminator}\n\
         chmod +x {script} && {script}\n\
         E2B_EXIT=$?; rm -f {script}; exit $E2B_EXIT"
    )
}

/// The command that stands for a `COPY` of a heredoc: it writes a file.
pub(crate) fn copy(
    heredoc: &Heredoc,
    destination: &str,
    owner: Option<&str>,
    mode: Option<u32>,
) -> Result<String, Fault> {
    let target = r#""$E2B_HEREDOC_DEST""#;
    let mut text = heredoc.stripped();
    if heredoc.expands {
        text = for_the_shell(&text)?;
    }
    let end = heredoc.terminator(&text);
    let begin = match heredoc.expands {
        true => end.clone(),
        false => format!("'{end}'"),
    };
    // A folder gets a file of the heredoc's name.
    let mut command = if destination.ends_with('/') {
        let file = quote(&format!("{destination}{}", heredoc.name));
        format!("E2B_HEREDOC_DEST={file}\n")
    } else {
        let (file, name) = (quote(destination), quote(&heredoc.name));
        format!(
            "E2B_HEREDOC_DEST={file}\n\
             if [ -d {target} ]; then E2B_HEREDOC_DEST={target}/{name}; fi\n"
        )
    };
    let text = ended(text);
    command += &format!("mkdir -p \"$(dirname {target})\" && cat <<{begin} >{target}\n{text}{end}");
    if let Some(owner) = owner {
        command += &format!("\nchown {} {target}", quote(owner));
    }
    if let Some(mode) = mode {
        command += &format!("\nchmod {mode:o} {target}");
    }
    Ok(command)
}

fn ended(text: String) -> String {
    match text.is_empty() || text.ends_with('\n') {
        true => text,
        false => text + "\n",
    }
}

/// The text so that a shell does to it what Docker would: variables count, and a backslash hides what
/// follows it, but no command is run.
fn for_the_shell(text: &str) -> Result<String, Fault> {
    Body {
        letters: text.chars().peekable(),
    }
    .until(None, false, 0)
}

struct Body<'t> {
    letters: std::iter::Peekable<std::str::Chars<'t>>,
}

impl Body<'_> {
    fn until(
        &mut self,
        stop: Option<char>,
        keeps_escapes: bool,
        depth: usize,
    ) -> Result<String, Fault> {
        let mut text = String::new();
        while let Some(letter) = self.letters.next() {
            match letter {
                _ if Some(letter) == stop => return Ok(text),
                '\\' => {
                    let Some(escaped) = self.letters.next() else {
                        continue;
                    };
                    let acts = matches!(escaped, '\\' | '`' | '$') || Some(escaped) == stop;
                    if keeps_escapes || acts {
                        text.push('\\');
                    }
                    text.push(escaped);
                }
                '$' => text.push_str(&self.variable(depth)?),
                '`' => text.push_str("\\`"),
                _ => text.push(letter),
            }
        }
        match stop {
            Some(stop) => Err(Fault::Brace(stop)),
            None => Ok(text),
        }
    }

    /// After a `$`.
    fn variable(&mut self, depth: usize) -> Result<String, Fault> {
        if self.letters.next_if_eq(&'{').is_none() {
            let name = shell::name(&mut self.letters);
            return Ok(match name.is_empty() {
                true => "\\$".to_owned(),
                false => format!("${name}"),
            });
        }
        match self.letters.peek() {
            None => return Err(Fault::Brace('}')),
            Some('{' | '}' | ':') => return Err(Fault::Substitution),
            Some(_) => {}
        }
        if depth == DEPTH_MAX {
            return Err(Fault::Nesting);
        }
        let name = shell::name(&mut self.letters);
        let Some(modifier) = Modifier::read(&mut self.letters)? else {
            return Ok(format!("${{{name}}}"));
        };
        let sign = modifier.written();
        let first = match modifier {
            Modifier::Replace { .. } => self.until(Some('/'), true, depth + 1)? + "/",
            _ => String::new(),
        };
        let word = self.until(Some('}'), modifier.wants_escapes(), depth + 1)?;
        Ok(format!("${{{name}{sign}{first}{word}}}"))
    }
}
