//! Text of recipes on its way into shell scripts.

/// As one word, whatever is in it.
pub(super) fn word(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

/// Inside double quotes: variables of the shell are put in, and nothing else happens
/// (`templates.md` 4.4, ENV).
pub(super) fn expanded(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for (at, c) in text.char_indices() {
        let is_plain = c == '$' && !names_a_variable(&text[at + 1..]);
        if matches!(c, '\\' | '"' | '`') || is_plain {
            quoted.push('\\');
        }
        quoted.push(c);
    }
    quoted.push('"');
    quoted
}

/// Whether what follows a dollar is a name, or one in braces and nothing else.
fn names_a_variable(text: &str) -> bool {
    let starts = |text: &str| text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    match text.strip_prefix('{').map(|text| text.split_once('}')) {
        None => starts(text),
        Some(None) => false,
        Some(Some((name, _))) => {
            let fits = |c: char| c.is_ascii_alphanumeric() || c == '_';
            starts(name) && name.chars().all(fits)
        }
    }
}

/// Whether [`expanded`] could give anything but the text itself.
pub(super) fn has_variables(text: &str) -> bool {
    text.contains('$')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What bash makes of it.
    fn bash(quoted: &str) -> String {
        let script = format!("A=value; B='x y'; printf %s {quoted}");
        let ran = std::process::Command::new("bash")
            .args(["-c", &script])
            .output()
            .unwrap();
        assert!(ran.status.success(), "{script}");
        String::from_utf8(ran.stdout).unwrap()
    }

    const HOSTILE: [&str; 9] = [
        "plain",
        "it's \"quoted\"",
        "back\\slash \\\\ two",
        "`id`",
        "$(id) \\$(id)",
        "two\nlines\n",
        "-n --leading",
        "!history * ? [a]",
        "",
    ];

    #[test]
    fn a_word_is_what_it_was() {
        for text in HOSTILE.iter().chain(&["$A ${B}"]) {
            assert_eq!(bash(&word(text)), *text);
        }
    }

    #[test]
    fn variables_are_put_in_and_nothing_runs() {
        for text in HOSTILE {
            assert_eq!(bash(&expanded(text)), text);
        }
        assert_eq!(bash(&expanded("$A-${B}:$NOTHING")), "value-x y:");
        // Only names: no arithmetic, no defaults, no transformations.
        for text in ["$[1+1]", "${A@P}", "${C:-x}", "$1", "$$", "100$", "${"] {
            assert_eq!(bash(&expanded(text)), text);
        }
    }
}
