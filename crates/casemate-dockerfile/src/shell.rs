//! Quotes, escapes and variables of words, as Docker reads them.
//!
//! Variables usually stay as they are written: the builder knows their values, and a shell does. Only
//! where a value must be known here (`--chmod`) are they put in.

use std::collections::HashMap;
use std::iter::Peekable;
use std::str::Chars;

use crate::error::Fault;
use crate::pattern::Pattern;

/// How deep `${A:-${B:-…}}` may go.
pub(crate) const DEPTH_MAX: usize = 64;

/// The largest value that variables are put into, in bytes: what the kernel takes for one variable.
/// Without it a few lines that double each other make terabytes.
const VALUE_BYTES_MAX: usize = 128 << 10;

/// Values of `ARG` and `ENV` so far.
pub(crate) type Variables = HashMap<String, String>;

/// The word without quotes and escapes; its variables stay.
pub(crate) fn unquote(word: &str, escape: char) -> Result<String, Fault> {
    let reading = Reading {
        escape,
        keeps_quotes: false,
        variables: None,
    };
    Ok(reading.read(word, false)?.whole)
}

/// The same with the values of its variables.
pub(crate) fn expand(word: &str, escape: char, variables: &Variables) -> Result<String, Fault> {
    let reading = Reading {
        escape,
        keeps_quotes: false,
        variables: Some(variables),
    };
    Ok(reading.read(word, false)?.whole)
}

/// A line's words as they are written, parted where a shell would.
pub(crate) fn raw_words(line: &str) -> Result<Vec<String>, Fault> {
    let reading = Reading {
        escape: '\\',
        keeps_quotes: true,
        variables: None,
    };
    Ok(reading.read(line, true)?.words.done())
}

/// A line's words without escapes, with or without their quotes.
pub(crate) fn words(line: &str, keeps_quotes: bool) -> Result<Vec<String>, Fault> {
    let reading = Reading {
        escape: '\\',
        keeps_quotes,
        variables: None,
    };
    Ok(reading.read(line, false)?.words.done())
}

/// What is wanted of a text.
#[derive(Clone, Copy)]
struct Reading<'a> {
    escape: char,
    keeps_quotes: bool,
    /// `None`: references stay.
    variables: Option<&'a Variables>,
}

impl Reading<'_> {
    fn read(self, text: &str, keeps_escapes: bool) -> Result<Text, Fault> {
        let mut scan = Scan {
            letters: text.chars().peekable(),
            reading: self,
            keeps_escapes,
            depth: 0,
        };
        scan.until(None)
    }
}

/// A text that was read, in one piece and in words.
#[derive(Default)]
struct Text {
    whole: String,
    words: Words,
}

/// What is not quoted is parted at spaces.
#[derive(Default)]
struct Words {
    done: Vec<String>,
    word: String,
}

impl Words {
    fn part(&mut self, letter: char) {
        if !letter.is_whitespace() {
            self.word.push(letter);
        } else if !self.word.is_empty() {
            self.done.push(std::mem::take(&mut self.word));
        }
    }

    fn done(mut self) -> Vec<String> {
        if !self.word.is_empty() {
            self.done.push(self.word);
        }
        self.done
    }
}

struct Scan<'a, 't> {
    letters: Peekable<Chars<'t>>,
    reading: Reading<'a>,
    keeps_escapes: bool,
    depth: usize,
}

impl Scan<'_, '_> {
    /// Up to `stop`, which is taken as well, or to the end.
    fn until(&mut self, stop: Option<char>) -> Result<Text, Fault> {
        let mut text = Text::default();
        while let Some(letter) = self.letters.next() {
            match letter {
                _ if Some(letter) == stop => return Ok(text),
                '$' => {
                    let value = self.dollar()?;
                    text.whole.push_str(&value);
                    value.chars().for_each(|letter| text.words.part(letter));
                }
                '<' => {
                    let mark = self.less();
                    text.whole.push_str(&mark);
                    text.words.word.push_str(&mark);
                }
                '\'' | '"' => {
                    let quoted = match letter {
                        '"' => self.double_quoted()?,
                        _ => self.single_quoted()?,
                    };
                    text.whole.push_str(&quoted);
                    text.words.word.push_str(&quoted);
                }
                _ if letter == self.reading.escape => {
                    // One at the end escapes nothing.
                    let escaped = self.letters.next();
                    let kept = self.keeps_escapes.then_some(letter);
                    for letter in kept.into_iter().chain(escaped) {
                        text.whole.push(letter);
                        text.words.word.push(letter);
                    }
                }
                _ => {
                    text.whole.push(letter);
                    text.words.part(letter);
                }
            }
            if self.reading.variables.is_some() && text.whole.len() > VALUE_BYTES_MAX {
                return Err(Fault::ValueTooLong);
            }
        }
        match stop {
            Some(stop) => Err(Fault::Brace(stop)),
            None => Ok(text),
        }
    }

    fn single_quoted(&mut self) -> Result<String, Fault> {
        let mut quoted = String::new();
        loop {
            match self.letters.next() {
                None => return Err(Fault::Quote("single")),
                Some('\'') => return Ok(self.in_quotes('\'', quoted)),
                Some(letter) => quoted.push(letter),
            }
        }
    }

    fn double_quoted(&mut self) -> Result<String, Fault> {
        let mut quoted = String::new();
        let escape = self.reading.escape;
        loop {
            let letter = self.letters.next().ok_or(Fault::Quote("double"))?;
            match letter {
                '"' => return Ok(self.in_quotes('"', quoted)),
                '$' => quoted.push_str(&self.dollar()?),
                _ if letter == escape => {
                    if self.keeps_escapes {
                        quoted.push(letter);
                    }
                    // It escapes only what would act; before anything else it is itself.
                    let acts = |next: &char| ['"', '$', escape].contains(next);
                    match self.letters.next_if(acts) {
                        Some(escaped) => quoted.push(escaped),
                        None if self.letters.peek().is_some() => quoted.push(letter),
                        None => {}
                    }
                }
                _ => quoted.push(letter),
            }
        }
    }

    fn in_quotes(&self, quote: char, quoted: String) -> String {
        match self.reading.keeps_quotes {
            true => format!("{quote}{quoted}{quote}"),
            false => quoted,
        }
    }

    /// After a `<`: the mark of a heredoc takes the spaces before its name along.
    fn less(&mut self) -> String {
        let mut mark = "<".to_owned();
        if self.letters.next_if_eq(&'<').is_some() {
            mark.push('<');
            while let Some(space) = self.letters.next_if(|c| matches!(c, '\t' | '\r' | ' ')) {
                mark.push(space);
            }
        }
        mark
    }

    /// After a `$`.
    fn dollar(&mut self) -> Result<String, Fault> {
        if self.letters.next_if_eq(&'{').is_none() {
            let name = name(&mut self.letters);
            return Ok(match (&*name, self.reading.variables) {
                ("", _) => "$".to_owned(),
                (_, None) => format!("${name}"),
                (_, Some(variables)) => variables.get(&name).cloned().unwrap_or_default(),
            });
        }
        match self.letters.peek() {
            None => return Err(Fault::Brace('}')),
            Some('{' | '}' | ':') => return Err(Fault::Substitution),
            Some(_) => {}
        }
        if self.depth == DEPTH_MAX {
            return Err(Fault::Nesting);
        }
        self.depth += 1;
        let value = self.braced();
        self.depth -= 1;
        value
    }

    /// After a `${`.
    fn braced(&mut self) -> Result<String, Fault> {
        let name = name(&mut self.letters);
        let modifier = Modifier::read(&mut self.letters)?;
        let Some(modifier) = modifier else {
            return Ok(match self.reading.variables {
                None => format!("${{{name}}}"),
                Some(variables) => variables.get(&name).cloned().unwrap_or_default(),
            });
        };
        if let Modifier::Replace { .. } = modifier {
            let pattern = self.part('/', true)?;
            let by = self.part('}', true)?;
            return match self.reading.variables {
                None => Ok(format!("${{{name}{}{pattern}/{by}}}", modifier.written())),
                Some(variables) => {
                    let value = variables.get(&name).map_or("", String::as_str);
                    modifier.replace(value, &pattern, &by)
                }
            };
        }
        let word = self.part('}', modifier.wants_escapes())?;
        match self.reading.variables {
            None => Ok(format!("${{{name}{}{word}}}", modifier.written())),
            Some(variables) => {
                modifier.apply(&name, variables.get(&name).map(String::as_str), word)
            }
        }
    }

    fn part(&mut self, stop: char, keeps_escapes: bool) -> Result<String, Fault> {
        let before = std::mem::replace(&mut self.keeps_escapes, keeps_escapes);
        let part = self.until(Some(stop));
        self.keeps_escapes = before;
        Ok(part?.whole)
    }
}

/// A variable's name: letters, digits and `_`, or only digits, or one of the shell's signs.
pub(crate) fn name(letters: &mut Peekable<Chars<'_>>) -> String {
    let mut name = String::new();
    match letters.next_if(|c| "@*#?-$!".contains(*c) || c.is_ascii_digit()) {
        Some(sign) if !sign.is_ascii_digit() => return sign.to_string(),
        Some(digit) => {
            name.push(digit);
            while let Some(digit) = letters.next_if(char::is_ascii_digit) {
                name.push(digit);
            }
            return name;
        }
        None => {}
    }
    while let Some(letter) = letters.next_if(|c| c.is_alphanumeric() || *c == '_') {
        name.push(letter);
    }
    name
}

/// What stands between the name and the word of a `${…}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Modifier {
    /// `-`; with a colon an empty value counts as none, here and below.
    Default { or_empty: bool },
    /// `+`
    Instead { or_empty: bool },
    /// `?`
    Must { or_empty: bool },
    /// `#`: the shortest match, or by the word's first letter the longest.
    Prefix,
    /// `%`
    Suffix,
    /// `/` and `//`
    Replace { all: bool },
}

impl Modifier {
    /// `None`: the `}` follows.
    pub(crate) fn read(letters: &mut Peekable<Chars<'_>>) -> Result<Option<Self>, Fault> {
        let mut next = || letters.next().ok_or(Fault::Brace('}'));
        let first = next()?;
        let or_empty = first == ':';
        let sign = if or_empty { next()? } else { first };
        Ok(Some(match sign {
            '}' if !or_empty => return Ok(None),
            '-' => Self::Default { or_empty },
            '+' => Self::Instead { or_empty },
            '?' => Self::Must { or_empty },
            '#' if !or_empty => Self::Prefix,
            '%' if !or_empty => Self::Suffix,
            '/' if !or_empty => Self::Replace {
                all: letters.next_if_eq(&'/').is_some(),
            },
            _ => {
                let colon = if or_empty { ":" } else { "" };
                return Err(Fault::Modifier(format!("{colon}{sign}")));
            }
        }))
    }

    pub(crate) fn written(self) -> &'static str {
        match self {
            Self::Default { or_empty: true } => ":-",
            Self::Default { or_empty: false } => "-",
            Self::Instead { or_empty: true } => ":+",
            Self::Instead { or_empty: false } => "+",
            Self::Must { or_empty: true } => ":?",
            Self::Must { or_empty: false } => "?",
            Self::Prefix => "#",
            Self::Suffix => "%",
            Self::Replace { all: true } => "//",
            Self::Replace { all: false } => "/",
        }
    }

    /// Its word is a pattern, which has escapes of its own.
    pub(crate) fn wants_escapes(self) -> bool {
        matches!(self, Self::Prefix | Self::Suffix | Self::Replace { .. })
    }

    fn apply(self, name: &str, value: Option<&str>, word: String) -> Result<String, Fault> {
        let counts = |or_empty: bool| value.filter(|value| !(or_empty && value.is_empty()));
        let of = |value: &str| value.to_owned();
        Ok(match self {
            Self::Default { or_empty } => counts(or_empty).map_or(word, of),
            Self::Instead { or_empty } => match counts(or_empty) {
                Some(_) => word,
                None => String::new(),
            },
            Self::Must { or_empty } => match counts(or_empty) {
                Some(value) => value.to_owned(),
                None => {
                    return Err(Fault::MustBeSet {
                        name: name.to_owned(),
                        reason: match word.is_empty() {
                            true => "the file wants it".to_owned(),
                            false => word,
                        },
                    });
                }
            },
            Self::Prefix | Self::Suffix => {
                let sign = if self == Self::Prefix { '#' } else { '%' };
                let (pattern, longest) = match word.strip_prefix(sign) {
                    Some(pattern) => (pattern, true),
                    None => (&*word, false),
                };
                let pattern = Pattern::parse(pattern)?;
                let value = value.unwrap_or_default();
                match self {
                    Self::Prefix => pattern.without_prefix(value, longest),
                    _ => pattern.without_suffix(value, longest),
                }
            }
            Self::Replace { .. } => self.replace(value.unwrap_or_default(), &word, "")?,
        })
    }

    fn replace(self, value: &str, pattern: &str, by: &str) -> Result<String, Fault> {
        let all = self == Self::Replace { all: true };
        Pattern::parse(pattern)?.replaced(value, by, all, VALUE_BYTES_MAX)
    }
}
