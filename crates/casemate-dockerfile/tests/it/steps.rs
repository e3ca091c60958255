//! What files become, without a stock SDK to compare with.

use casemate_dockerfile::{Action, parse};

#[test]
fn a_file_becomes_steps_with_their_lines() {
    let text = "FROM debian:12\nENV A=1 B='x y'\nCOPY --chown=me --chmod=755 a b /c/\nUSER me\n\n\
                RUN [\"echo\", \"a b\"]\nCMD [\"serve\", \"--port\", \"80\"]\n";
    let recipe = parse(text).unwrap();
    assert_eq!(recipe.from, "debian:12");
    let copy = |source: &str| Action::Copy {
        source: source.to_owned(),
        destination: "/c/".to_owned(),
        owner: Some("me".to_owned()),
        mode: Some(0o755),
    };
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let expected = [
        (1, Action::User("root".to_owned())),
        (1, Action::Workdir("/".to_owned())),
        (2, Action::Env(vec![pair("A", "1"), pair("B", "x y")])),
        (3, copy("a")),
        (3, copy("b")),
        (4, Action::User("me".to_owned())),
        (
            6,
            Action::Run {
                command: "echo 'a b'".to_owned(),
                user: None,
            },
        ),
        (7, Action::Workdir("/home/user".to_owned())),
    ];
    let steps = recipe
        .steps
        .into_iter()
        .map(|step| (step.line, step.action));
    assert_eq!(steps.collect::<Vec<_>>(), expected);
    assert_eq!(recipe.start.as_deref(), Some("serve --port 80"));
    assert_eq!(recipe.ready.as_deref(), Some("sleep 20"));
}

#[test]
fn what_is_passed_over_is_named_with_its_line() {
    let text = "FROM --platform=linux/arm64 a\nEXPOSE 80\nRUN --mount=type=cache,target=/x y \\\n\n z\n\
                HEALTHCHECK NONE\nCOPY --link a b";
    let warnings = parse(text).unwrap().warnings;
    let mut shown: Vec<_> = warnings
        .iter()
        .map(|warning| format!("{}: {}", warning.line, warning.text))
        .collect();
    shown.sort();
    assert_eq!(
        shown,
        [
            "1: FROM --platform has no effect",
            "2: EXPOSE has no effect",
            "3: RUN --mount has no effect",
            "5: an empty line inside a continued instruction was passed over",
            "6: HEALTHCHECK has no effect",
            "7: COPY --link has no effect",
        ]
    );
}

#[test]
fn steps_have_the_form_of_the_api() {
    let text = "FROM a\nCOPY --chmod=040 b /c\nCOPY --chown=me:us d /e\nENV A=1 B='x y'\nRUN f";
    let steps = parse(text).unwrap().steps;
    let shown: Vec<_> = steps.iter().map(|step| step.action.wire()).collect();
    let expected: [(&str, &[&str]); 8] = [
        ("USER", &["root"]),
        ("WORKDIR", &["/"]),
        ("COPY", &["b", "/c", "", "0040"]),
        ("COPY", &["d", "/e", "me:us", ""]),
        ("ENV", &["A", "1", "B", "x y"]),
        ("RUN", &["f"]),
        ("USER", &["user"]),
        ("WORKDIR", &["/home/user"]),
    ];
    let expected = expected.map(|(kind, args)| {
        let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        (kind, args)
    });
    assert_eq!(shown, expected);
}
