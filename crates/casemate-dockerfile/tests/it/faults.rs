//! Files that are no recipes.

use casemate_dockerfile::{Fault, parse};

#[track_caller]
fn check(text: &str, line: usize, expected: &str) {
    let error = parse(text).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("Dockerfile parse error on line {line}: {expected}")
    );
}

#[test]
fn a_fault_says_the_line_where_its_instruction_begins() {
    check("# a\n\n", 2, "there is no FROM");
    check(
        "FROM a\n\nRUN x \\\n y\nFOO z",
        5,
        "unknown instruction: FOO",
    );
    check("FROM a\nRUN <<EOF\nx\ny", 2, "the heredoc EOF has no end");
    check("RUN x\nFROM a", 1, "RUN stands before FROM");
    check(
        "FROM a AS x\nRUN y\n\nFROM b",
        4,
        "a second FROM: builds in several stages are not supported",
    );
    check(
        "FROM a\nCOPY --from=b \\\n  /x /y",
        2,
        "COPY --from is not supported, for there is one stage only",
    );
    check(
        "FROM a\nADD https://x/y /z",
        2,
        "ADD of the remote address 'https://x/y' is not supported: use RUN with curl or git",
    );
    check("FROM a\nENV A=\"b", 2, "a double quote is not closed");
    check("FROM a\nENV A=${b", 2, "a ${ is not closed: '}' is missing");
    check(
        "FROM a\nCOPY --chmod=$M x y",
        2,
        "--chmod wants an octal mode such as 0755, not ''",
    );
    check("FROM a\nENV A=\"${B:?say it}\"", 2, "B must be set: say it");
    check(
        "# syntax=x\n# escape=|\nFROM a",
        2,
        "the escape character can be \\ or `, not '|'",
    );
}

#[test]
fn what_would_grow_or_nest_without_end_is_refused() {
    let nested = format!(
        "FROM a\nENV A={}x{}",
        "${B:-".repeat(10_000),
        "}".repeat(10_000)
    );
    assert_eq!(parse(&nested).unwrap_err().fault, Fault::Nesting);
    let body = format!(
        "FROM a\nCOPY <<E /x\n{}x{}\nE",
        "${B:-".repeat(10_000),
        "}".repeat(10_000)
    );
    assert_eq!(parse(&body).unwrap_err().fault, Fault::Nesting);
    let mut doubling = "FROM a\nENV A=0123456789\n".to_owned();
    for _ in 0..64 {
        doubling += "ENV A=$A$A\n";
    }
    assert_eq!(parse(&doubling).unwrap_err().fault, Fault::ValueTooLong);
    let long = "#".repeat(casemate_dockerfile::TEXT_BYTES_MAX + 1);
    assert_eq!(parse(&long).unwrap_err().fault, Fault::TooLong);
}

#[test]
fn any_text_is_judged() {
    // Every prefix of a file with all there is in it, and each with a stray letter.
    let text = "# escape=`\nFROM a AS b\nARG A=\"x\" B\nENV C=${A:-`\"q} D='e'\nCOPY --chmod=${X%%*y} \
                [\"f\", \"g\"]\nRUN --mount=x <<-'H' cat `\n  <<I\n\ta\n\tH\n$b ${c//d/e}\nI\nCMD [\"j\"]";
    for end in 0..=text.len() {
        for stray in ["", "`", "$", "${", "\"", "<<", "'", "[", "\\"] {
            let _ = parse(&format!("{}{stray}", &text[..end]));
        }
    }
}
