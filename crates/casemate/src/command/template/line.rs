//! Lines of builds for people. What they say comes out of a sandbox: it must not act on a terminal.

use casemate_client::api::BuildLogEntry;

use crate::command::table;

/// Whether levels have colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Colours {
    Shown,
    Plain,
}

impl Colours {
    /// Only on a terminal, and where nobody asked for none (https://no-color.org).
    pub fn of(is_terminal: bool) -> Self {
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        match is_terminal && !unwanted {
            true => Self::Shown,
            false => Self::Plain,
        }
    }
}

/// One entry in one line or more.
pub fn show(entry: &BuildLogEntry, colours: Colours) -> String {
    let time = format!("{:.3}", entry.timestamp);
    let level = clean(&entry.level);
    let message: Vec<_> = entry.message.trim_end().lines().map(clean).collect();
    let text = format!("{time} {level:<5} {}", message.join("\n    "));
    let colour = match (colours, &*entry.level) {
        (Colours::Plain, _) | (Colours::Shown, "info") => return text,
        (Colours::Shown, "debug") => "2",
        (Colours::Shown, "warn") => "33",
        (Colours::Shown, _) => "31",
    };
    format!("\x1b[{colour}m{text}\x1b[0m")
}

/// The text without terminal sequences, and without single letters that act.
pub fn clean(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '\x1b' => match letters.next() {
                // Parameters, then the letter that says what to do.
                Some('[') => while letters.next().is_some_and(|c| !('@'..='~').contains(&c)) {},
                // A text for the terminal, up to its end.
                Some(']' | 'P' | 'X' | '^' | '_') => {
                    while let Some(inner) = letters.next() {
                        if inner == '\x07'
                            || (inner == '\x1b' && letters.next_if_eq(&'\\').is_some())
                        {
                            break;
                        }
                    }
                }
                _ => {}
            },
            '\t' => plain.push(' '),
            // Progress bars begin their line anew.
            '\r' => plain.push(' '),
            _ => plain.push(letter),
        }
    }
    table::clean(&plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_acts_on_a_terminal_is_taken_out() {
        for (text, expected) in [
            ("plain é", "plain é"),
            ("\x1b[1;31mred\x1b[0m", "red"),
            ("a\x1b]0;title\x07b\x1b]8;;x\x1b\\c", "abc"),
            ("a\rb\tc", "a b c"),
            ("\x08\u{9b}31m\u{202e}", "??31m?"),
            ("end\x1b", "end"),
            ("end\x1b[31", "end"),
        ] {
            assert_eq!(clean(text), expected, "{text:?}");
        }
    }

    #[test]
    fn levels_have_colours_only_where_they_are_shown() {
        let entry = BuildLogEntry {
            timestamp: "2026-01-02T03:04:05.6789Z".parse().unwrap(),
            message: "one\ntwo\x1b[2J\n".to_owned(),
            level: "error".to_owned(),
            step: None,
        };
        let plain = "2026-01-02T03:04:05.678Z error one\n    two";
        assert_eq!(show(&entry, Colours::Plain), plain);
        let shown = show(&entry, Colours::Shown);
        assert_eq!(shown, format!("\x1b[31m{plain}\x1b[0m"));
    }
}
