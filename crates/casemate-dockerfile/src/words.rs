//! Where words begin and end. Their quotes and escapes stay, but those of flags.

/// What parts words from a line's beginning; narrower than what trims.
pub(crate) fn is_blank(letter: char) -> bool {
    matches!(letter, '\t' | '\u{b}' | '\u{c}' | '\r' | ' ')
}

/// Words without regard to quotes.
pub(crate) fn split_blank(text: &str) -> Vec<String> {
    let words = text.split(is_blank).filter(|word| !word.is_empty());
    words.map(str::to_owned).collect()
}

/// Words, of which quotes and escapes can make longer ones.
pub(crate) fn split_words(text: &str, escape: char) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quote = None;
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        if letter == escape && quote != Some('\'') {
            // One that ends the line escapes nothing and is dropped.
            if let Some(escaped) = letters.next() {
                word.push(letter);
                word.push(escaped);
            }
            continue;
        }
        match quote {
            Some(open) if letter == open => quote = None,
            Some(_) => {}
            None if letter.is_whitespace() => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                continue;
            }
            None if matches!(letter, '\'' | '"') => quote = Some(letter),
            None => {}
        }
        word.push(letter);
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

/// The flags that a line begins with, without quotes and escapes, and what follows them. A bare `--`
/// ends them.
pub(crate) fn split_flags(line: &str, escape: char) -> (Vec<String>, &str) {
    let mut flags = Vec::new();
    let mut rest = line.trim_start();
    while rest.starts_with("--") {
        let (flag, after) = flag(rest, escape);
        rest = after;
        if flag == "--" {
            break;
        }
        flags.push(flag);
        rest = rest.trim_start();
    }
    (flags, rest.trim())
}

fn flag(text: &str, escape: char) -> (String, &str) {
    let mut flag = String::new();
    let mut quote = None;
    let mut letters = text.char_indices();
    while let Some((at, letter)) = letters.next() {
        if letter == escape {
            flag.extend(letters.next().map(|(_, escaped)| escaped));
            continue;
        }
        match quote {
            Some(open) if letter == open => quote = None,
            Some(_) => flag.push(letter),
            None if letter.is_whitespace() => return (flag, &text[at..]),
            None if matches!(letter, '\'' | '"') => quote = Some(letter),
            None => flag.push(letter),
        }
    }
    (flag, "")
}
