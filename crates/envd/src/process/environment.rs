//! The variables of a new process, and where its program is looked for.

use std::collections::{BTreeMap, HashMap};
use std::ffi::CString;

use crate::settings::Settings;
use crate::users::User;

/// Where nothing else is said, as in a sandbox whose init got no environment.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// On whose behalf a process is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// Of whoever the sandbox was made for, with the variables that they gave it.
    Client,
    /// Of the template: it may have been started before anybody asked for the sandbox.
    Template,
}

/// Exactly these, later ones win: own PATH, the account, the sandbox, the request.
pub fn variables(
    own_path: Option<String>,
    user: &User,
    settings: &Settings,
    whose: Whose,
    requested: &HashMap<String, String, impl std::hash::BuildHasher>,
) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    all.insert(
        "PATH".to_owned(),
        own_path.unwrap_or_else(|| DEFAULT_PATH.to_owned()),
    );
    all.insert("HOME".to_owned(), user.home.clone());
    all.insert("USER".to_owned(), user.name.clone());
    all.insert("LOGNAME".to_owned(), user.name.clone());
    let mut insert = |(name, value): (&String, &String)| {
        all.insert(name.clone(), value.clone());
    };
    match whose {
        Whose::Client => settings.variables().for_each(&mut insert),
        Whose::Template => settings.variables_of_all().for_each(&mut insert),
    }
    for (name, value) in requested {
        all.insert(name.clone(), value.clone());
    }
    all
}

/// `NAME=value` for each; an error names the variable that cannot be one.
pub fn block(variables: &BTreeMap<String, String>) -> Result<Vec<CString>, String> {
    variables
        .iter()
        .map(|(name, value)| {
            if name.is_empty() || name.contains('=') {
                return Err(name.clone());
            }
            CString::new(format!("{name}={value}")).map_err(|_| name.clone())
        })
        .collect()
}

/// The files that `command` may mean, in the order of the search. Empty: it means none.
pub fn candidates(command: &str, path: &str) -> Vec<CString> {
    if command.is_empty() {
        return Vec::new();
    }
    if command.contains('/') {
        return CString::new(command).into_iter().collect();
    }
    path.split(':')
        .map(|dir| if dir.is_empty() { "." } else { dir })
        .filter_map(|dir| CString::new(format!("{dir}/{command}")).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user() -> User {
        User {
            name: "user".into(),
            uid: 1000,
            gid: 1000,
            home: "/home/user".into(),
        }
    }

    #[test]
    fn the_request_wins_over_the_sandbox_over_the_account() {
        let mut settings = Settings::new(None, true);
        settings.replace_user_variables(
            [("HOME", "/h"), ("A", "init")]
                .map(|(n, v)| (n.to_owned(), v.to_owned()))
                .into(),
        );
        let requested = HashMap::from([("A".to_owned(), "call".to_owned())]);
        let of = |whose| variables(None, &user(), &settings, whose, &requested);
        let all = of(Whose::Template);
        assert_eq!((all["HOME"].as_str(), all.len()), ("/home/user", 6));
        let all = of(Whose::Client);
        assert_eq!(all["PATH"], DEFAULT_PATH);
        assert_eq!(all["HOME"], "/h");
        assert_eq!(all["USER"], "user");
        assert_eq!(all["LOGNAME"], "user");
        assert_eq!(all["E2B_SANDBOX"], "true");
        assert_eq!(all["A"], "call");
        assert_eq!(all.len(), 6);
    }

    #[test]
    fn impossible_variables_are_named() {
        for name in ["", "A=B", "A\0"] {
            assert_eq!(
                block(&BTreeMap::from([(name.to_owned(), String::new())])),
                Err(name.to_owned())
            );
        }
        let nul = BTreeMap::from([("A".to_owned(), "\0".to_owned())]);
        assert_eq!(block(&nul), Err("A".to_owned()));
    }

    #[test]
    fn search() {
        let as_text = |command, path| -> Vec<String> {
            candidates(command, path)
                .into_iter()
                .map(|c| c.into_string().unwrap())
                .collect()
        };
        assert_eq!(as_text("ls", "/a::/b"), ["/a/ls", "./ls", "/b/ls"]);
        assert_eq!(as_text("./ls", "/a"), ["./ls"]);
        assert!(as_text("", "/a").is_empty());
    }
}
