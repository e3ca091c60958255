//! The host's apt settings that matter for reaching its package sources.

use std::io;
use std::path::Path;
use std::process::Command;

use super::{HostError, Settings, unfit};

/// What passes to sandboxes; all else (hooks, cleaning, local paths) is the host's own.
const PASSED: &[&str] = &[
    "acquire::check-valid-until",
    "acquire::check-date",
    "acquire::forceipv4",
    "acquire::retries",
    "acquire::http::proxy",
    "acquire::http::timeout",
    "acquire::https::proxy",
    "acquire::https::timeout",
];

/// Lines for a file of `apt.conf.d`. A host without apt has none.
pub fn apt_options(host_root: &Path) -> Result<Settings, HostError> {
    // apt's own reader: the syntax has scopes, lists, includes and clears. It is asked only for
    // the machine's real settings; a look-alike root in tests has none.
    if host_root != Path::new("/") {
        return Ok(Settings::default());
    }
    let mut command = Command::new("apt-config");
    command.arg("dump").env("LC_ALL", "C");
    let output = match command.output() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Settings::default()),
        Err(source) => {
            let path = "apt-config".into();
            return Err(HostError::Read { path, source });
        }
        Ok(output) => output,
    };
    if !output.status.success() {
        let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(HostError::AptConfig { message });
    }
    Ok(passed(&String::from_utf8_lossy(&output.stdout)))
}

/// Picks from the lines `Name "value";` that `apt-config dump` prints.
fn passed(dump: &str) -> Settings {
    let mut settings = Settings::default();
    for line in dump.lines() {
        let Some((name, value)) = line.split_once(' ') else {
            continue;
        };
        let lower = name.to_ascii_lowercase();
        let fits = PASSED.iter().any(|key| {
            // `Acquire::http::Proxy::host` is the proxy for one host.
            lower
                .strip_prefix(key)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
        });
        let empty = value == "\"\";";
        if !fits || empty || !value.starts_with('"') || !value.ends_with("\";") {
            continue;
        }
        match unfit(value) {
            None => settings.text.push_str(&format!("{name} {value}\n")),
            Some(reason) => settings
                .notes
                .push(format!("apt's setting {name} was left out: {reason}")),
        }
    }
    settings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_named_settings_without_secrets_pass() {
        let dump = "APT \"\";\nAcquire::Check-Date \"false\";\nAcquire::http::Proxy \"\";\n\
                    Acquire::http::Proxy::deb.corp \"http://proxy.corp:3128\";\n\
                    Acquire::https::Proxy \"http://me:pw@proxy.corp:3128\";\n\
                    DPkg::Post-Invoke:: \"rm -rf /\";\nAcquire::http::ProxyAutoDetect \"/x\";\n";
        let found = passed(dump);
        assert_eq!(
            found.text,
            "Acquire::Check-Date \"false\";\n\
             Acquire::http::Proxy::deb.corp \"http://proxy.corp:3128\";\n"
        );
        assert_eq!(found.notes.len(), 1);
        assert!(!found.notes[0].contains("pw"));
    }
}
