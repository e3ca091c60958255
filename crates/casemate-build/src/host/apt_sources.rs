//! The host's package sources, as far as they offer one Debian release.
//!
//! Both spellings (`.list` lines and `.sources` paragraphs) come out as paragraphs. Third-party
//! sources stay out: their keys and packages are the host's own business.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::{HostError, Settings, files_ending, read, unfit};

/// Debian's keys, on a Debian host and in the base alike.
pub const DEBIAN_KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// The same file as Debian names it since trixie, where the other name is a link.
const DEBIAN_KEYRING_PGP: &str = "/usr/share/keyrings/debian-archive-keyring.pgp";

/// The Debian releases whose sources can be named: all that get updates, and the rolling one.
pub const RELEASES: [&str; 5] = ["bullseye", "bookworm", "trixie", "forky", ROLLING];
/// It has no updates and no security of its own.
const ROLLING: &str = "sid";
/// What else names releases in sources.
const OTHER_NAMES: [&str; 6] = [
    "buster",
    "oldoldstable",
    "oldstable",
    "stable",
    "testing",
    "unstable",
];

const COMPONENTS: [&str; 4] = ["main", "contrib", "non-free", "non-free-firmware"];

/// One source, whatever its spelling.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Source {
    uris: Vec<String>,
    suites: Vec<String>,
    components: Vec<String>,
    signed_by: Option<String>,
    trusted: bool,
}

/// The host's sources for `release` (such as `bookworm`) in deb822 form; the text is empty when
/// it has none.
pub fn debian_sources(host_root: &Path, release: &str) -> Result<Settings, HostError> {
    let sources = sources(host_root)?;
    Ok(collect(&sources, release, |source| fit(source, release)))
}

/// The same; where the host has none for that release, the mirrors of those that it has for others,
/// with the release's names. Mirrors hold all releases as a rule.
pub fn debian_sources_like(host_root: &Path, release: &str) -> Result<Settings, HostError> {
    let sources = sources(host_root)?;
    let own = collect(&sources, release, |source| fit(source, release));
    if !own.text.is_empty() {
        return Ok(own);
    }
    let renamed = |source: Source| fit(source.renamed(release), release);
    Ok(collect(&sources, release, renamed))
}

/// A source, and the file that it is in.
type Found = (PathBuf, Source);

fn sources(host_root: &Path) -> Result<Vec<Found>, HostError> {
    let apt = host_root.join("etc/apt");
    let mut files = vec![apt.join("sources.list")];
    files.extend(files_ending(
        &apt.join("sources.list.d"),
        &["list", "sources"],
    )?);
    let mut found = Vec::new();
    for file in files {
        let Some(text) = read(&file)? else { continue };
        let paragraphs = file.extension().is_some_and(|ending| ending == "sources");
        let sources = if paragraphs {
            parse_paragraphs(&text)
        } else {
            text.lines().filter_map(parse_line).collect()
        };
        found.extend(sources.into_iter().map(|source| (file.clone(), source)));
    }
    Ok(found)
}

fn collect(
    found: &[Found],
    release: &str,
    fit: impl Fn(Source) -> Result<Source, &'static str>,
) -> Settings {
    let mut settings = Settings::default();
    for (file, source) in found {
        match fit(source.clone()) {
            Ok(source) => {
                // Several releases of one mirror become one.
                let paragraph = source.paragraph(release);
                if !settings.text.contains(&paragraph) {
                    settings.text.push_str(&paragraph);
                }
            }
            Err(reason) => settings.notes.push(format!(
                "a source of {} was left out: {reason}",
                file.display()
            )),
        }
    }
    settings
}

/// What of a source may pass, or why none of it.
fn fit(mut source: Source, release: &str) -> Result<Source, &'static str> {
    if let Some(reason) = source.uris.iter().find_map(|uri| unfit(uri)) {
        return Err(reason);
    }
    let web = |uri: &String| uri.starts_with("http://") || uri.starts_with("https://");
    if !source.uris.iter().all(web) {
        return Err("it is not on the network");
    }
    if source
        .signed_by
        .as_deref()
        .is_some_and(|key| ![DEBIAN_KEYRING, DEBIAN_KEYRING_PGP].contains(&key))
    {
        return Err("it is signed by others than Debian");
    }
    source.suites.retain(|suite| of_release(suite, release));
    source
        .components
        .retain(|component| components(release).contains(&component.as_str()));
    if source.suites.is_empty() || source.components.is_empty() {
        return Err("it is not one of this Debian release");
    }
    Ok(source)
}

/// Firmware was part of `non-free` before bookworm.
fn components(release: &str) -> &'static [&'static str] {
    match release {
        "bullseye" => &COMPONENTS[..3],
        _ => &COMPONENTS,
    }
}

/// What a suite of any release is called in this one; `None` where this one may not have it.
fn in_release(suite: &str, release: &str) -> Option<String> {
    let names = RELEASES.iter().chain(&OTHER_NAMES);
    let part = names
        .filter_map(|name| suite.strip_prefix(name))
        .find(|rest| {
            let parts = ["", "-updates", "-security", "/updates"];
            parts.contains(rest)
        })?;
    match part {
        "" => Some(release.to_owned()),
        _ if release == ROLLING => None,
        "-updates" => Some(format!("{release}-updates")),
        // As it is called since bullseye.
        _ => Some(format!("{release}-security")),
    }
}

fn of_release(suite: &str, release: &str) -> bool {
    let rest = suite.strip_prefix(release);
    let parts = [
        "",
        "-updates",
        "-security",
        "/updates",
        "-backports",
        "-proposed-updates",
    ];
    rest.is_some_and(|rest| parts.contains(&rest))
}

impl Source {
    /// The same of another release.
    fn renamed(mut self, release: &str) -> Self {
        let mut suites: Vec<String> = Vec::new();
        for suite in self
            .suites
            .iter()
            .flat_map(|suite| in_release(suite, release))
        {
            if !suites.contains(&suite) {
                suites.push(suite);
            }
        }
        self.suites = suites;
        self
    }

    fn paragraph(&self, release: &str) -> String {
        let keyring = match release {
            "bullseye" | "bookworm" => DEBIAN_KEYRING,
            _ => DEBIAN_KEYRING_PGP,
        };
        let trust = if self.trusted { "Trusted: yes\n" } else { "" };
        format!(
            "Types: deb\nURIs: {}\nSuites: {}\nComponents: {}\nSigned-By: {keyring}\n{trust}\n",
            self.uris.join(" "),
            self.suites.join(" "),
            self.components.join(" "),
        )
    }
}

/// `deb [option=value …] uri suite component…`; `None` for all else.
fn parse_line(line: &str) -> Option<Source> {
    let line = line.split('#').next().unwrap_or_default().trim();
    let rest = line.strip_prefix("deb ")?.trim_start();
    let (options, rest) = match rest.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?,
        None => ("", rest),
    };
    let option = |name: &str| {
        let value = |part: &'_ str| {
            part.strip_prefix(name)?
                .strip_prefix('=')
                .map(str::to_owned)
        };
        options.split_whitespace().find_map(value)
    };
    let mut words = rest.split_whitespace().map(str::to_owned);
    Some(Source {
        uris: vec![words.next()?],
        suites: vec![words.next()?],
        components: words.collect(),
        signed_by: option("signed-by"),
        trusted: option("trusted").is_some_and(|value| value == "yes"),
    })
}

fn parse_paragraphs(text: &str) -> Vec<Source> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let mut paragraphs = vec![HashMap::<String, String>::new()];
    let mut last = String::new();
    for line in lines {
        let current = paragraphs
            .last_mut()
            .expect("starts with one and only grows");
        if line.trim().is_empty() {
            paragraphs.push(HashMap::new());
        } else if line.starts_with([' ', '\t']) {
            let value = current.entry(last.clone()).or_default();
            value.push('\n');
            value.push_str(line.trim());
        } else if let Some((name, value)) = line.split_once(':') {
            last = name.trim().to_ascii_lowercase();
            current.insert(last.clone(), value.trim().to_owned());
        }
    }
    paragraphs.iter().filter_map(source_of).collect()
}

fn source_of(fields: &HashMap<String, String>) -> Option<Source> {
    let words = |name: &str| -> Vec<String> {
        let value = fields.get(name).map_or("", String::as_str);
        value.split_whitespace().map(str::to_owned).collect()
    };
    let says = |name: &str, value: &str| fields.get(name).is_some_and(|have| have == value);
    if says("enabled", "no") || !words("types").iter().any(|kind| kind == "deb") {
        return None;
    }
    Some(Source {
        uris: words("uris"),
        suites: words("suites"),
        components: words("components"),
        signed_by: fields.get("signed-by").cloned(),
        trusted: says("trusted", "yes"),
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[track_caller]
    fn check(name: &str, content: &str, expected: &[&str], notes: usize) {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("etc/apt/sources.list.d");
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join(name), content).unwrap();
        let found = debian_sources(root.path(), "bookworm").unwrap();
        let lines: Vec<&str> = found
            .text
            .lines()
            .filter(|l| l.starts_with("URIs") || l.starts_with("Suites") || l.starts_with("Comp"))
            .collect();
        assert_eq!(lines, expected);
        assert_eq!(found.notes.len(), notes, "{:?}", found.notes);
    }

    #[test]
    fn both_spellings_are_read() {
        check(
            "a.list",
            "# x\ndeb-src http://d/debian bookworm main\n\
             deb [arch=amd64] http://d/debian bookworm main contrib # y\n",
            &[
                "URIs: http://d/debian",
                "Suites: bookworm",
                "Components: main contrib",
            ],
            0,
        );
        check(
            "a.sources",
            "Types: deb\n# x\nURIs: http://d/debian\nSuites: bookworm\n bookworm-updates trixie\n\
             Components: main\n\nTypes: deb\nEnabled: no\nURIs: http://e\nSuites: bookworm\n",
            &[
                "URIs: http://d/debian",
                "Suites: bookworm bookworm-updates",
                "Components: main",
            ],
            0,
        );
    }

    #[test]
    fn what_is_not_debians_or_not_public_stays_out() {
        check(
            "a.list",
            "deb https://me:pw@mirror/debian bookworm main\n",
            &[],
            1,
        );
        check("a.list", "deb file:/srv/debian bookworm main\n", &[], 1);
        check(
            "a.list",
            "deb http://127.0.0.1/debian bookworm main\n",
            &[],
            1,
        );
        check(
            "a.list",
            "deb [signed-by=/etc/apt/keyrings/d.asc] https://d bookworm stable\n",
            &[],
            1,
        );
        check("a.list", "deb http://d/ubuntu noble main\n", &[], 1);
        check(
            "a.list.disabled",
            "deb http://d/debian bookworm main\n",
            &[],
            0,
        );
    }

    /// A host of bookworm, with mirrors of its own.
    const HOST: &str = "Types: deb\nURIs: http://m/debian\nComponents: main non-free-firmware\n\
        Suites: bookworm bookworm-updates bookworm-backports\n\n\
        Types: deb\nURIs: http://m/debian-security\nSuites: bookworm-security\n\
        Components: main\nSigned-By: /usr/share/keyrings/debian-archive-keyring.pgp\n";

    #[track_caller]
    fn check_like(content: &str, release: &str, expected: &str) {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("etc/apt/sources.list.d");
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("debian.sources"), content).unwrap();
        let found = debian_sources_like(root.path(), release).unwrap();
        let text = found.text.replace("Types: deb\n", "").replace('\n', "|");
        assert_eq!(text, expected);
    }

    #[test]
    fn the_hosts_mirrors_are_named_for_other_releases() {
        let gpg = "Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg";
        let pgp = "Signed-By: /usr/share/keyrings/debian-archive-keyring.pgp";
        let (debian, security) = ("URIs: http://m/debian", "URIs: http://m/debian-security");
        let own = "Suites: bookworm bookworm-updates bookworm-backports";
        check_like(
            HOST,
            "bookworm",
            &format!(
                "{debian}|{own}|Components: main non-free-firmware|{gpg}||\
                 {security}|Suites: bookworm-security|Components: main|{gpg}||"
            ),
        );
        check_like(
            HOST,
            "bullseye",
            &format!(
                "{debian}|Suites: bullseye bullseye-updates|Components: main|{gpg}||\
                 {security}|Suites: bullseye-security|Components: main|{gpg}||"
            ),
        );
        check_like(
            HOST,
            "sid",
            &format!("{debian}|Suites: sid|Components: main non-free-firmware|{pgp}||"),
        );
        let several = "Types: deb\nURIs: http://m/debian\nSuites: stable unstable\n\
                       Components: main\n\nTypes: deb\nURIs: http://m/debian\n\
                       Suites: bookworm\nComponents: main\n";
        let one = format!("{debian}|Suites: trixie|Components: main|{pgp}||");
        check_like(several, "trixie", &one);
        let others = "Types: deb\nURIs: http://m/ubuntu\nSuites: noble noble-updates\n\
                      Components: main\n";
        check_like(others, "trixie", "");
    }
}
