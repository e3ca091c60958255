//! The host's settings for pip and npm that matter for reaching its registries.

use std::path::Path;

use super::{HostError, Settings, read, unfit};

const PIP_FILES: &[&str] = &["etc/xdg/pip/pip.conf", "etc/pip.conf"];
const PIP_PASSED: &[&str] = &[
    "index-url",
    "extra-index-url",
    "trusted-host",
    "proxy",
    "timeout",
    "retries",
];
const NPM_FILES: &[&str] = &["etc/npmrc", "usr/etc/npmrc", "usr/local/etc/npmrc"];
const NPM_PASSED: &[&str] = &[
    "registry",
    "strict-ssl",
    "proxy",
    "https-proxy",
    "noproxy",
    "fetch-retries",
    "fetch-timeout",
];

/// Lines for the section `[global]` of a `pip.conf`. Only the machine's own files are read, not
/// those of a person.
pub fn pip_options(host_root: &Path) -> Result<Settings, HostError> {
    let mut settings = Settings::default();
    for file in PIP_FILES {
        if let Some(text) = read(&host_root.join(file))? {
            pip_lines(&text, &mut settings);
        }
    }
    Ok(settings)
}

/// Lines for an `npmrc`.
pub fn npm_options(host_root: &Path) -> Result<Settings, HostError> {
    let mut settings = Settings::default();
    for file in NPM_FILES {
        if let Some(text) = read(&host_root.join(file))? {
            npm_lines(&text, &mut settings);
        }
    }
    Ok(settings)
}

fn pip_lines(text: &str, settings: &mut Settings) {
    let mut in_global = false;
    let mut options: Vec<(String, String)> = Vec::new();
    for line in text.lines() {
        let trimmed = line.trim();
        if trimmed.is_empty() || trimmed.starts_with(['#', ';']) {
            continue;
        }
        if trimmed.starts_with('[') {
            in_global = trimmed == "[global]";
        } else if !in_global {
            continue;
        } else if line.starts_with([' ', '\t']) {
            // More words of the option above.
            if let Some((_, value)) = options.last_mut() {
                value.push(' ');
                value.push_str(trimmed);
            }
        } else if let Some((name, value)) = trimmed.split_once(['=', ':']) {
            options.push((name.trim().into(), value.trim().into()));
        }
    }
    for (name, value) in options {
        if PIP_PASSED.contains(&name.as_str()) {
            push("pip", &name, &value, settings);
        }
    }
}

fn npm_lines(text: &str, settings: &mut Settings) {
    for line in text.lines() {
        let line = line.trim();
        if line.starts_with(['#', ';']) {
            continue;
        }
        let Some((name, value)) = line.split_once('=') else {
            continue;
        };
        let (name, value) = (name.trim(), value.trim());
        let of_scope = name.starts_with('@') && name.ends_with(":registry");
        if NPM_PASSED.contains(&name) || of_scope {
            push("npm", name, value, settings);
        } else if name.to_ascii_lowercase().contains("auth") {
            settings.notes.push(format!(
                "npm's setting {} was left out: it is a credential",
                last_part(name)
            ));
        }
    }
}

fn push(program: &str, name: &str, value: &str, settings: &mut Settings) {
    match unfit(value) {
        None => settings.text.push_str(&format!("{name} = {value}\n")),
        Some(reason) => settings
            .notes
            .push(format!("{program}'s setting {name} was left out: {reason}")),
    }
}

/// `//registry.corp/:_authToken` → `_authToken`.
fn last_part(name: &str) -> &str {
    name.rsplit(':').next().unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pip_passes_indexes_without_secrets() {
        let mut found = Settings::default();
        let text = "[global]\nindex-url = https://pypi.corp/simple\nextra-index-url =\n  \
                    https://a/simple\n  https://me:pw@b/simple\ncert = /etc/x\n\n\
                    [install]\nuser = yes\n";
        pip_lines(text, &mut found);
        assert_eq!(found.text, "index-url = https://pypi.corp/simple\n");
        assert_eq!(found.notes.len(), 1);
        assert!(!found.notes[0].contains("pw"));
    }

    #[test]
    fn npm_passes_registries_without_tokens() {
        let mut found = Settings::default();
        let text = "registry=https://npm.corp/\n@a:registry = https://a.corp/\n\
                    //npm.corp/:_authToken=sekret\ncafile=/etc/x\nfund=false\n";
        npm_lines(text, &mut found);
        assert_eq!(
            found.text,
            "registry = https://npm.corp/\n@a:registry = https://a.corp/\n"
        );
        assert_eq!(found.notes.len(), 1);
        assert!(!found.notes[0].contains("sekret"));
    }
}
