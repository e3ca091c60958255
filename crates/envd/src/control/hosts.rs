//! Entries in `/etc/hosts`.

use std::fs;
use std::io;

pub const HOSTS: &str = "/etc/hosts";
/// The name under which programs reach the platform's event server.
pub const EVENTS_NAME: &str = "events.e2b.local";
/// A file beyond this is not ours to rewrite.
pub const HOSTS_BYTES: u64 = 1024 * 1024;

/// The address of a machine's own name that is in no DNS, as Debian has it.
const OWN_ADDRESS: &str = "127.0.1.1";
/// A sandbox's id: one letter `i` and twenty more characters.
const SANDBOX_ID_CHARS: usize = 21;

/// Makes `name` mean `address`, and leaves all else as it is.
pub fn set(path: &str, address: &str, name: &str) -> io::Result<()> {
    rewrite(path, |old| with_entry(old, address, name))
}

/// Gives the machine its name. Those of the sandboxes whose files it begins with go.
pub fn set_own(path: &str, name: &str) -> io::Result<()> {
    rewrite(path, |old| match without_former(old, name) {
        Some(rest) => with_entry(&rest, OWN_ADDRESS, name).or(Some(rest)),
        None => with_entry(old, OWN_ADDRESS, name),
    })
}

/// A file's text without the names of sandboxes.
pub fn without_sandboxes(text: Vec<u8>) -> Vec<u8> {
    let rest = std::str::from_utf8(&text)
        .ok()
        .and_then(|text| without_former(text, ""));
    rest.map_or(text, String::into_bytes)
}

fn rewrite(path: &str, change: impl FnOnce(&str) -> Option<String>) -> io::Result<()> {
    let old = match fs::metadata(path) {
        Ok(found) if found.len() > HOSTS_BYTES => return Err(io::ErrorKind::FileTooLarge.into()),
        Ok(_) => String::from_utf8_lossy(&fs::read(path)?).into_owned(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error),
    };
    match change(&old) {
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

/// The text without the lines that other sandboxes gave themselves; `None`: there are none.
fn without_former(old: &str, name: &str) -> Option<String> {
    let is_former = |line: &&str| match *line.split_whitespace().collect::<Vec<_>>() {
        [OWN_ADDRESS, other] => other != name && is_sandbox_id(other),
        _ => false,
    };
    old.lines().any(|line| is_former(&line)).then(|| {
        let rest = old.lines().filter(|line| !is_former(line));
        rest.flat_map(|line| [line, "\n"]).collect()
    })
}

fn is_sandbox_id(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    text.len() == SANDBOX_ID_CHARS && text.starts_with('i') && text.bytes().all(plain)
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
    fn names_of_former_sandboxes_go_and_all_else_stays() {
        let path = std::env::temp_dir().join(format!("envd-hosts-{}", std::process::id()));
        let path = path.to_str().unwrap();
        let (first, second) = ("i9lsxf4dt5lozp5z1ww28", "ij9a7h97u35esnd7l4l6j");
        let plain = "127.0.0.1 localhost\n127.0.1.1 e2b.local\n127.0.1.1 mine\n";
        fs::write(path, plain).unwrap();
        set_own(path, first).unwrap();
        fs::write(path, fs::read_to_string(path).unwrap() + "10.0.0.1 db\n").unwrap();
        for name in [second, second, first] {
            set_own(path, name).unwrap();
            let text = fs::read_to_string(path).unwrap();
            assert_eq!(text, format!("{plain}10.0.0.1 db\n127.0.1.1 {name}\n"));
        }
        fs::remove_file(path).unwrap();
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
