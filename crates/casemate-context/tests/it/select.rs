//! Which files a source names.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixListener;

use casemate_context::{Context, ContextError};

use crate::tree::tree;

#[track_caller]
fn check_refused(source: &str, expected: &str) {
    let folder = tree();
    let context = Context::open(folder.path()).unwrap();
    let error = context.select(source, "/x").unwrap_err();
    assert_eq!(error.to_string(), expected);
}

#[test]
fn a_source_that_leaves_the_context_is_refused() {
    check_refused(
        "/etc/passwd",
        "Invalid source path \"/etc/passwd\": absolute paths are not allowed. Use a relative path \
         within the context directory.",
    );
    for source in [
        "..",
        "../a",
        "a/../../b",
        "./dir/../../x",
        "out/passwd",
        "out/*",
        "o*/passwd",
    ] {
        check_refused(
            source,
            &format!(
                "Invalid source path \"{source}\": path escapes the context directory. The path \
                 must stay within the context directory."
            ),
        );
    }
}

#[test]
fn a_source_that_names_nothing_is_refused() {
    for source in ["nope", "nope/*", "a.txt/", "*.zip", "", "nope/../a.txt"] {
        let folder = tree();
        let context = Context::open(folder.path()).unwrap();
        let error = context.select(source, "/x").unwrap_err();
        assert!(matches!(error, ContextError::Nothing { .. }), "{source}");
    }
}

#[test]
fn a_name_that_is_no_text_is_in_the_way_of_those_alone_who_would_copy_it() {
    let folder = tree();
    let odd = |place: &str| {
        folder
            .path()
            .join(place)
            .join(OsStr::from_bytes(b"odd\xff"))
    };
    fs::write(odd("dir"), "").unwrap();
    fs::create_dir(odd("node_modules")).unwrap();
    let select = |ignore: &str, source: &str| {
        fs::write(folder.path().join(".dockerignore"), ignore).unwrap();
        let context = Context::open(folder.path()).unwrap();
        context.select(source, "/x").and_then(|files| files.hash())
    };
    for (ignore, source) in [
        ("", "dir/*.txt"),
        ("", "dir/b.txt"),
        ("", "dir/**/c.txt"),
        ("**/odd*", "."),
        ("dir\nnode_modules\n!node_modules/keep.txt", "."),
        ("**/odd*", "**"),
    ] {
        let selected = select(ignore, source);
        assert!(selected.is_ok(), "{ignore:?} {source}: {selected:?}");
    }
    for (ignore, source) in [
        ("", "."),
        ("", "dir"),
        ("", "dir/o*"),
        ("", "**/keep.txt"),
        ("*\n!**/deep", "."),
    ] {
        let error = select(ignore, source).unwrap_err();
        let is_it = matches!(error, ContextError::NotText { .. });
        assert!(is_it, "{ignore:?} {source}: {error}");
    }
}

#[test]
fn a_pattern_takes_time_in_proportion() {
    let folder = tree();
    fs::write(folder.path().join("a".repeat(250)), "").unwrap();
    let hard = format!("{}b", "a*".repeat(120));
    let context = Context::open(folder.path()).unwrap();
    assert!(context.select(&hard, "/x").is_err());
}

#[test]
fn a_dockerignore_that_cannot_be_read_is_refused_with_its_line() {
    for (text, expected) in [
        (
            "a\n!\n",
            "line 2 of .dockerignore cannot be read: nothing follows its '!'",
        ),
        (
            "\n# x\n[a\n",
            "line 3 of .dockerignore cannot be read: its [ has no ]",
        ),
        (
            "a\\\n",
            "line 1 of .dockerignore cannot be read: it ends with a backslash",
        ),
    ] {
        let folder = tree();
        fs::write(folder.path().join(".dockerignore"), text).unwrap();
        let error = Context::open(folder.path()).unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
    let folder = tree();
    fs::write(folder.path().join(".dockerignore"), "a\n".repeat(200_000)).unwrap();
    let error = Context::open(folder.path()).unwrap_err();
    assert!(matches!(error, ContextError::IgnoreTooLong { .. }));
}

#[test]
fn a_context_must_be_a_folder() {
    let folder = tree();
    for name in ["a.txt", "nope"] {
        let error = Context::open(&folder.path().join(name)).unwrap_err();
        assert!(matches!(error, ContextError::Read { .. }));
    }
}

#[test]
fn a_socket_counts_for_the_hash_and_is_left_out_of_the_archive() {
    let folder = tree();
    let _socket = UnixListener::bind(folder.path().join("empty/s")).unwrap();
    let context = Context::open(folder.path()).unwrap();
    let selection = context.select("empty", "/x").unwrap();
    assert_eq!(selection.count(), 2);
    let archive = selection.archive(&selection.hash().unwrap()).unwrap();
    assert_eq!(archive.left_out, ["empty/s"]);
}
