//! `.dockerignore`, by Docker's rules: a folder that is left out takes what is in it along, `!` takes
//! in again, and the last line that matches counts.

use std::path::Path;

use crate::error::ContextError;
use crate::glob::{self, Piece, class};

/// What is left out of a context.
#[derive(Debug, Default)]
pub(crate) struct Ignore {
    rules: Vec<Rule>,
}

#[derive(Debug)]
struct Rule {
    /// It begins with `!`.
    takes_in: bool,
    pieces: Vec<Piece>,
    /// The names that its path is made of, as they are written.
    names: Vec<String>,
}

/// Which rules match a folder, for what is in it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Matched(Vec<bool>);

impl Ignore {
    pub(crate) fn parse(text: &str, root: &Path) -> Result<Self, ContextError> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut rules = Vec::new();
        for (index, line) in text.split('\n').enumerate() {
            if line.starts_with('#') || line.trim().is_empty() {
                continue;
            }
            let rule = rule(line.trim(), root);
            let line = index + 1;
            rules.push(rule.map_err(|reason| ContextError::Ignore { line, reason })?);
        }
        Ok(Self { rules })
    }

    /// Whether a path is left out, when `folder` is what was said of the folder that it is in.
    pub(crate) fn leaves_out(&self, folder: &Matched, path: &str) -> (bool, Matched) {
        let mut left_out = false;
        let mut matched = Vec::with_capacity(self.rules.len());
        for (index, rule) in self.rules.iter().enumerate() {
            let by_folder = folder.0.get(index) == Some(&true);
            // A rule that could change nothing is not asked, and so says nothing of what is inside.
            let counts = rule.takes_in == left_out;
            let matches = by_folder || (counts && glob::matches(&rule.pieces, path));
            if matches {
                left_out = !rule.takes_in;
            }
            matched.push(matches);
        }
        (left_out, Matched(matched))
    }

    /// The same of a path whose folders were not looked at.
    pub(crate) fn leaves_out_path(&self, path: &str) -> (bool, Matched) {
        let mut said = (false, Matched::default());
        for (end, _) in path.match_indices('/').chain([(path.len(), "")]) {
            said = self.leaves_out(&said.1, &path[..end]);
        }
        said
    }

    /// Whether something below a folder that is left out may be taken in again.
    pub(crate) fn may_take_in_below(&self, folder: &str) -> bool {
        let mut rules = self.rules.iter();
        rules.any(|rule| rule.takes_in && rule.may_match_below(folder))
    }
}

impl Rule {
    fn may_match_below(&self, folder: &str) -> bool {
        let mut names = self.names.iter();
        for part in folder.split('/') {
            match names.next() {
                None => return false,
                Some(name) if name.contains("**") => return true,
                Some(name) if !name.contains(['*', '?', '[', '\\']) && name != part => {
                    return false;
                }
                Some(_) => {}
            }
        }
        names.next().is_some()
    }
}

fn rule(line: &str, root: &Path) -> Result<Rule, &'static str> {
    let (takes_in, pattern) = match line.strip_prefix('!') {
        Some(pattern) => (true, pattern.trim()),
        None => (false, line),
    };
    if pattern.is_empty() {
        return Err("nothing follows its '!'");
    }
    // A whole path of this machine that leads into the context means what is there.
    let inside = root.to_str().and_then(|root| pattern.strip_prefix(root));
    let pattern = match inside.and_then(|inside| inside.strip_prefix('/')) {
        Some(inside) if !inside.trim_matches('/').is_empty() => inside,
        _ => pattern,
    };
    let names = clean(pattern);
    let pattern = names.join("/");
    Ok(Rule {
        takes_in,
        pieces: pieces(&pattern)?,
        names,
    })
}

/// The names of a path, from the context's root on.
fn clean(pattern: &str) -> Vec<String> {
    let mut names: Vec<&str> = Vec::new();
    let from_root = pattern.starts_with('/');
    for name in pattern.split('/') {
        match name {
            "" | "." => {}
            ".." if names.last().is_some_and(|last| *last != "..") => {
                names.pop();
            }
            // Nothing is above the root; without one it leads out and matches nothing.
            ".." if from_root => {}
            _ => names.push(name),
        }
    }
    names.into_iter().map(str::to_owned).collect()
}

fn pieces(pattern: &str) -> Result<Vec<Piece>, &'static str> {
    let mut pieces = Vec::new();
    let mut letters = pattern.chars();
    while let Some(letter) = letters.next() {
        pieces.push(match letter {
            '*' if letters.as_str().starts_with('*') => {
                letters.next();
                deep(&mut letters, pieces.is_empty())
            }
            '*' => Piece::Many,
            '?' => Piece::Any,
            '\\' => Piece::Letter(letters.next().ok_or("it ends with a backslash")?),
            '[' => {
                check_class(letters.as_str())?;
                class(&mut letters, &['^']).ok_or(NO_END)?
            }
            _ => Piece::Letter(letter),
        });
    }
    Ok(pieces)
}

const NO_END: &str = "its [ has no ]";

/// A class as Docker takes it: neither a dash nor a `]` stands for itself, and ranges go upwards.
fn check_class(inner: &str) -> Result<(), &'static str> {
    let mut letters = inner.strip_prefix('^').unwrap_or(inner).chars();
    let mut is_first = true;
    loop {
        let first = match letters.next().ok_or(NO_END)? {
            ']' if !is_first => return Ok(()),
            letter => class_end(letter, &mut letters)?,
        };
        is_first = false;
        if letters.as_str().starts_with('-') {
            letters.next();
            let last = letters.next().ok_or(NO_END)?;
            if class_end(last, &mut letters)? < first {
                return Err("a range in its [ ] goes downwards");
            }
        }
    }
}

/// One end of a range.
fn class_end(letter: char, letters: &mut std::str::Chars<'_>) -> Result<char, &'static str> {
    match letter {
        '-' | ']' => Err("its [ ] is empty, or has a dash that is in no range"),
        '\\' => letters.next().ok_or(NO_END),
        letter => Ok(letter),
    }
}

/// After `**`, which with a slash after it is any folders. Before a plain name it is that without a
/// slash too, but at the beginning, where it is whatever the text begins with.
fn deep(letters: &mut std::str::Chars<'_>, is_first: bool) -> Piece {
    let rest = letters.as_str();
    if let Some(rest) = rest.strip_prefix('/') {
        *letters = rest.chars();
        if !rest.is_empty() {
            return Piece::Folders;
        }
    } else if !rest.is_empty() && (!is_first || rest.contains(['*', '?', '[', ']', '\\'])) {
        return Piece::Folders;
    }
    Piece::Deep
}
