//! Patterns of `${NAME#pattern}` and its like: `*`, `?`, and escapes.

use crate::error::Fault;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Piece {
    Letter(char),
    Any,
    Many,
}

/// A pattern that was read.
#[derive(Debug)]
pub(crate) struct Pattern {
    pieces: Vec<Piece>,
}

impl Pattern {
    pub(crate) fn parse(text: &str) -> Result<Self, Fault> {
        let mut pieces = Vec::new();
        let mut letters = text.chars();
        while let Some(letter) = letters.next() {
            pieces.push(match letter {
                '*' => Piece::Many,
                '?' => Piece::Any,
                // `}` and `/` had to be escaped where the pattern stands; `*`, `?` and `\` as
                // letters.
                '\\' => match letters.next() {
                    Some(escaped @ ('}' | '/' | '*' | '?' | '\\')) => Piece::Letter(escaped),
                    other => {
                        let other = other.map(String::from).unwrap_or_default();
                        return Err(Fault::PatternEscape(other));
                    }
                },
                _ => Piece::Letter(letter),
            });
        }
        Ok(Self { pieces })
    }

    pub(crate) fn without_prefix(&self, value: &str, longest: bool) -> String {
        let letters: Vec<char> = value.chars().collect();
        let length = self.length(&letters, longest).unwrap_or(0);
        letters[length..].iter().collect()
    }

    pub(crate) fn without_suffix(&self, value: &str, longest: bool) -> String {
        let pieces = self.pieces.iter().rev().copied().collect();
        let backwards: Vec<char> = value.chars().rev().collect();
        let length = Self { pieces }.length(&backwards, longest).unwrap_or(0);
        backwards[length..].iter().rev().collect()
    }

    /// Every match, or the first, replaced; longer than `bytes_max` is an error.
    pub(crate) fn replaced(
        &self,
        value: &str,
        by: &str,
        all: bool,
        bytes_max: usize,
    ) -> Result<String, Fault> {
        let letters: Vec<char> = value.chars().collect();
        let mut replaced = String::new();
        let mut at = 0;
        let mut goes_on = true;
        while at <= letters.len() {
            let length = match goes_on {
                true => self.length(&letters[at..], true),
                false => None,
            };
            if let Some(length) = length {
                replaced.push_str(by);
                at += length;
                goes_on = all;
            }
            if length.is_none_or(|length| length == 0) {
                replaced.extend(letters.get(at));
                at += 1;
            }
            if replaced.len() > bytes_max {
                return Err(Fault::ValueTooLong);
            }
        }
        Ok(replaced)
    }

    /// How many letters at the beginning match, the fewest or the most.
    fn length(&self, letters: &[char], longest: bool) -> Option<usize> {
        // `at[n]`: the first n pieces match what was read so far.
        let mut at = vec![false; self.pieces.len() + 1];
        at[0] = true;
        self.pass_many(&mut at);
        let mut found = None;
        for read in 0..=letters.len() {
            if at[self.pieces.len()] {
                found = Some(read);
                if !longest {
                    break;
                }
            }
            let Some(letter) = letters.get(read) else {
                break;
            };
            for (index, piece) in self.pieces.iter().enumerate().rev() {
                let moves = at[index] && (*piece == Piece::Any || *piece == Piece::Letter(*letter));
                let stays = at[index + 1] && *piece == Piece::Many;
                at[index + 1] = moves || stays;
            }
            at[0] = false;
            self.pass_many(&mut at);
            if !at.contains(&true) {
                break;
            }
        }
        found
    }

    /// `*` matches nothing, too.
    fn pass_many(&self, at: &mut [bool]) {
        for (index, piece) in self.pieces.iter().enumerate() {
            if *piece == Piece::Many && at[index] {
                at[index + 1] = true;
            }
        }
    }
}
