//! Patterns of names and paths. Matching takes time in proportion to pattern times text, whatever the
//! pattern: there is no going back.
//!
//! Of our own because the usual crates mean something else: `globset` reads braces and not Docker's
//! `**`, `ignore` has git's rules.

/// What a part of a pattern matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Piece {
    Letter(char),
    /// Any letter but a slash.
    Any,
    /// Any letters but slashes, or none.
    Many,
    /// Any letters, or none.
    Deep,
    /// Nothing, or any folders with the slash after them.
    Folders,
    /// One letter of some.
    Class {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
}

impl Piece {
    fn takes(&self, letter: char) -> bool {
        match self {
            Self::Letter(own) => *own == letter,
            Self::Any => letter != '/',
            Self::Class { negated, ranges } => {
                let mut ranges = ranges.iter();
                ranges.any(|(first, last)| (*first..=*last).contains(&letter)) != *negated
            }
            Self::Many | Self::Deep | Self::Folders => false,
        }
    }

    /// Letters that it goes on with once it is passed.
    fn goes_on(&self, letter: char) -> bool {
        match self {
            Self::Many => letter != '/',
            Self::Deep => true,
            _ => false,
        }
    }

    fn may_be_empty(&self) -> bool {
        matches!(self, Self::Many | Self::Deep | Self::Folders)
    }
}

/// Whether the pieces match the whole text.
pub(crate) fn matches(pieces: &[Piece], text: &str) -> bool {
    // `at[n]`: the first n pieces match what was read so far. `inside[n]`: piece n, which is
    // `Folders`, is in the middle of a folder's name.
    let mut at = vec![false; pieces.len() + 1];
    let mut inside = vec![false; pieces.len()];
    at[0] = true;
    pass_empty(pieces, &mut at);
    for letter in text.chars() {
        for (index, piece) in pieces.iter().enumerate().rev() {
            if *piece == Piece::Folders {
                // A slash ends the name; the next one may begin as long as this is not left.
                let was_inside = inside[index] || at[index];
                inside[index] = was_inside;
                at[index + 1] = was_inside && letter == '/';
            } else {
                at[index + 1] =
                    at[index] && piece.takes(letter) || at[index + 1] && piece.goes_on(letter);
            }
        }
        at[0] = false;
        pass_empty(pieces, &mut at);
    }
    at[pieces.len()]
}

fn pass_empty(pieces: &[Piece], at: &mut [bool]) {
    for (index, piece) in pieces.iter().enumerate() {
        if at[index] && piece.may_be_empty() {
            at[index + 1] = true;
        }
    }
}

/// The class whose `[` was read already; what follows it is left. `None`: it has no end.
pub(crate) fn class(letters: &mut std::str::Chars<'_>, negations: &[char]) -> Option<Piece> {
    let mut ahead = letters.clone();
    let mut rest = letters.clone();
    let negated = rest.next().is_some_and(|first| negations.contains(&first));
    if !negated {
        rest = ahead.clone();
    }
    let mut ranges = Vec::new();
    loop {
        ahead = rest.clone();
        match ahead.next()? {
            ']' if !ranges.is_empty() => break,
            _ => {}
        }
        let first = class_letter(&mut rest)?;
        ahead = rest.clone();
        // A dash before the end is one itself.
        let is_range = ahead.next() == Some('-') && !matches!(ahead.next(), None | Some(']'));
        let last = match is_range {
            true => {
                rest.next();
                class_letter(&mut rest)?
            }
            false => first,
        };
        ranges.push((first, last));
    }
    *letters = ahead;
    Some(Piece::Class { negated, ranges })
}

fn class_letter(letters: &mut std::str::Chars<'_>) -> Option<char> {
    match letters.next()? {
        '\\' => letters.next(),
        letter => Some(letter),
    }
}
