//! What every crate's files must have: a module document at the top, the workspace's lints, no
//! `mod.rs`, and no code in documents that looks as if it were tested.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::workspace::Workspace;

/// The one crate that writes its own lints: it is where `unsafe` lives.
const OWN_LINTS: &str = "casemate-linux";

pub fn check(workspace: &Workspace) -> Result<Vec<String>> {
    let mut violations = Vec::new();
    for package in &workspace.packages {
        let manifest = read(&package.manifest_path)?;
        let manifest: toml::Table = manifest.parse().context("read a manifest")?;
        let inherits = manifest
            .get("lints")
            .and_then(|lints| lints.get("workspace"));
        if package.name != OWN_LINTS && inherits != Some(&toml::Value::Boolean(true)) {
            violations.push(format!(
                "{} does not inherit the workspace's lints",
                package.name
            ));
        }
        for file in sources(&package.dir().join("src"))? {
            let name = file.file_name().unwrap_or_default();
            if name == "mod.rs" {
                violations.push(format!("{}: use foo.rs beside foo/", file.display()));
            }
            let text = read(&file)?;
            if (name == "lib.rs" || name == "main.rs") && !text.starts_with("//!") {
                violations.push(format!("{} does not say what the crate is", file.display()));
            }
            violations.extend(doc_tests(&text).map(|line| {
                let file = file.display();
                format!("{file}:{line}: doc tests are not run; test it, or call it `text`")
            }));
        }
    }
    Ok(violations)
}

/// Lines on which code begins that `rustdoc` would take for a test. `scripts/test` does not ask it to:
/// it would compile every crate once more.
fn doc_tests(text: &str) -> impl Iterator<Item = usize> {
    let mut open = false;
    text.lines().enumerate().filter_map(move |(index, line)| {
        let line = line.trim_start();
        let words = line.strip_prefix("///").or(line.strip_prefix("//!"))?;
        let kind = words.trim().strip_prefix("```")?;
        open = !open;
        (open && kind != "text").then_some(index + 1)
    })
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("read {}", path.display()))
}

/// All Rust files below a folder.
fn sources(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        let listed = fs::read_dir(&folder).with_context(|| format!("list {}", folder.display()))?;
        for entry in listed {
            let entry = entry.with_context(|| format!("list {}", folder.display()))?;
            if entry.file_type().context("look at a file")?.is_dir() {
                folders.push(entry.path());
            } else if entry
                .path()
                .extension()
                .is_some_and(|extension| extension == "rs")
            {
                found.push(entry.path());
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::doc_tests;

    #[track_caller]
    fn check(text: &str, expected: &[usize]) {
        assert_eq!(doc_tests(text).collect::<Vec<_>>(), expected, "{text}");
    }

    #[test]
    fn code_in_documents_is_found_and_pictures_are_not() {
        check("//! ```text\n//! a -> b\n//! ```\n\nfn main() {}\n", &[]);
        check("/// ```\n/// f();\n/// ```\n", &[1]);
        check(
            "    /// Says.\n    ///\n    /// ```no_run\n    /// f();\n    /// ```\n",
            &[3],
        );
        check(
            "/// ```text\n/// a\n/// ```\n/// ```rust\n/// f();\n/// ```\n",
            &[4],
        );
        check("// ```\nlet text = \"```\";\n", &[]);
    }
}
