//! The same sources through the stock SDK: the hash is the same only where the files are.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use casemate_context::Context;
use serde_json::{Value, json};

use crate::tree::tree;

/// Where both refuse, neither has a hash.
const SOURCES: &[&str] = &[
    "",
    ".",
    "./",
    "..",
    "../x",
    "/etc",
    "nope",
    "nope/../a.txt",
    "a.txt",
    "./a.txt",
    "a.txt/",
    "a.txt/.",
    "a.txt/./",
    "a.txt/**",
    "a.txt/**/",
    "a.txt/**/.",
    "a.txt/*",
    "[a].txt/.",
    "[a].txt/**",
    "dir/b.txt/./**",
    "broken/.",
    "broken/**",
    "broken/**/x",
    "dir",
    "dir/",
    "./dir",
    "dir/.",
    "dir/*",
    "dir/../a.txt",
    "dir//b.txt",
    "dir/up",
    "link",
    "link/",
    "link/*",
    "broken",
    "out",
    "*",
    ".*",
    "*.txt",
    "a.t?t",
    "?",
    "**",
    "./**",
    "**/*.txt",
    "dir/**",
    "dir/**/c.txt",
    "dir/**/**/c.txt",
    "d**",
    "***",
    "**/deep/**",
    "*/",
    "**/",
    "*/b.txt",
    "dir/sub/../*",
    "[ab].txt",
    "[!a]*",
    "[^a]*",
    "[a-b].txt",
    "[!a-b]*.txt",
    "[x]",
    "\\[x\\]",
    "[",
    "[a",
    "[]x]",
    "we{ird},1",
    "{a,b}.txt",
    "sp ace",
    "é",
    "\\a.txt",
    "!a.txt",
    "a.txt|b.txt",
    "node_modules",
    "node_modules/*",
    "node_modules/m/index.js",
    "empty",
    "run.sh",
    "**/.env",
];

/// Each is a `.dockerignore`.
const IGNORES: &[&str] = &[
    "",
    "# all\n\n  \nnode_modules\n",
    "\u{feff}a.txt\r\n*.log\r\n",
    "*\n!a.txt\n!dir/sub\n",
    "**/*.txt\n!dir/**/c.txt",
    "/dir/sub\n/a.txt",
    "dir/\n./b.txt\ndir/../empty",
    "**\n!node_modules/m",
    "node_modules\n!node_modules/keep.txt",
    "node_modules/*\n!node_modules/keep.txt\nnode_modules/keep*",
    "dir/**\n!dir/sub/**\ndir/sub/deep",
    "**b.txt\n**/deep",
    "d**t\nd*/sub",
    "[a-b].txt\n[^d-z]*\n!we*",
    "\\[x\\]\n?\n*.*\n!**/.env",
    "! dir/b.txt\ndir\n!dir/b.txt",
    "dir*",
    "**/sub/**/*.log\n.*",
    ".\n..\n../a.txt\n/",
    "***\n!run.sh",
    "!",
    "[",
    "a[",
    "a\\",
    "[]",
    "[-a]",
    "[a-]",
    "[b-a]",
    "[a-b-c]",
    "[^]",
    "[a\\]",
];

#[test]
fn a_source_takes_the_files_that_it_takes_with_the_sdk() {
    let Ok(python) = std::env::var("CASEMATE_TEST_SDK_PYTHON") else {
        println!("skipped: CASEMATE_TEST_SDK_PYTHON names no Python with the stock SDK");
        return;
    };
    let folders: Vec<_> = IGNORES.iter().map(|_| tree()).collect();
    for (folder, ignore) in folders.iter().zip(IGNORES) {
        fs::write(folder.path().join(".dockerignore"), ignore).unwrap();
    }
    let paths: Vec<_> = folders.iter().map(|folder| folder.path()).collect();
    let theirs = sdk(&python, &paths);
    let mut different = Vec::new();
    for ((path, ignore), theirs) in paths.iter().zip(IGNORES).zip(theirs) {
        for (source, theirs) in SOURCES.iter().zip(theirs) {
            let ours = Context::open(path).and_then(|context| {
                let selection = context.select(source, "/dest/")?;
                selection.hash()
            });
            if ours.as_deref().ok() != theirs.as_str() {
                different.push(format!("{ignore:?} {source:?}: {ours:?}, theirs {theirs}"));
            }
        }
    }
    assert!(different.is_empty(), "{}", different.join("\n"));
}

fn sdk(python: &str, contexts: &[&Path]) -> Vec<Vec<Value>> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/sdk.py");
    let mut child = Command::new(python)
        .arg(script)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let asked = json!({"contexts": contexts, "sources": SOURCES}).to_string();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(asked.as_bytes())
        .unwrap();
    let ran = child.wait_with_output().unwrap();
    assert!(ran.status.success());
    serde_json::from_slice(&ran.stdout).unwrap()
}
