//! Entries in `/etc/hosts`.

use std::fs;
use std::io;

pub const HOSTS: &str = "/etc/hosts";
/// The name under which programs reach the platform's event server.
pub const EVENTS_NAME: &str = "events.e2b.local";
/// A file beyond this is not ours to rewrite.
const HOSTS_BYTES: u64 = 1024 * 1024;

/// Makes `name` mean `address`, and leaves all else as it is.
pub fn set(path: &str, address: &str, name: &str) -> io::Result<()> {
    let old = match fs::metadata(path) {
        Ok(found) if found.len() > HOSTS_BYTES => return Err(io::ErrorKind::FileTooLarge.into()),
        Ok(_) => String::from_utf8_lossy(&fs::read(path)?).into_owned(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error),
    };
    match with_entry(&old, address, name) {
        Some(new) => fs::write(path, new),
        None => Ok(()),
    }
}

/// The new text; `None`: it says so already.
fn with_entry(old: &str, address: &str, name: &str) -> Option<String> {
    let names = |line: &str| {
        let line = line.split('#').next().unwrap_or_default();
        line.split_whitespace().skip(1).any(|own| own == name)
    };
    let entry = format!("{address} {name}");
    let mut found = old.lines().filter(|line| names(line));
    if found.next().is_some_and(|line| line.trim() == entry) && found.next().is_none() {
        return None;
    }
    let mut new = String::with_capacity(old.len() + entry.len() + 1);
    for line in old.lines().filter(|line| !names(line)) {
        new.push_str(line);
        new.push('\n');
    }
    new.push_str(&entry);
    new.push('\n');
    Some(new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(old: &str, expected: Option<&str>) {
        assert_eq!(
            with_entry(old, "192.0.2.1", EVENTS_NAME).as_deref(),
            expected
        );
    }

    #[test]
    fn an_entry_is_there_once() {
        let entry = "192.0.2.1 events.e2b.local\n";
        check("", Some(entry));
        check(
            "127.0.0.1 localhost\n",
            Some(&format!("127.0.0.1 localhost\n{entry}")),
        );
        check(
            "127.0.0.1 localhost",
            Some(&format!("127.0.0.1 localhost\n{entry}")),
        );
        check(&format!("127.0.0.1 localhost\n{entry}"), None);
        check(
            "192.0.2.9 events.e2b.local\n# note\n",
            Some(&format!("# note\n{entry}")),
        );
        check(&format!("{entry}{entry}"), Some(entry));
        check(
            "# events.e2b.local\n",
            Some(&format!("# events.e2b.local\n{entry}")),
        );
    }
}
