//! The user database, read from `/etc/passwd` and `/etc/group` each time: users come and go while
//! the agent runs. Static glibc has no name services, so there is nothing else to ask.

use std::collections::HashMap;
use std::fs;

const PASSWD: &str = "/etc/passwd";
const GROUP: &str = "/etc/group";

/// An account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    pub name: String,
    pub uid: u32,
    pub gid: u32,
    pub home: String,
}

impl User {
    /// The account of that name, if there is one. An unreadable database is an empty one.
    pub fn by_name(name: &str) -> Option<Self> {
        find_user(&read(PASSWD), name)
    }

    /// The primary group first, then all others.
    pub fn groups(&self) -> Vec<u32> {
        groups_of(&read(GROUP), &self.name, self.gid)
    }
}

/// The number of the group of that name, if there is one.
pub fn group_by_name(name: &str) -> Option<u32> {
    find_group(&read(GROUP), name)
}

/// Names by number, for listings.
#[derive(Default)]
pub struct Names {
    users: HashMap<u32, String>,
    groups: HashMap<u32, String>,
}

impl Names {
    pub fn read() -> Self {
        Self {
            users: names(&read(PASSWD)),
            groups: names(&read(GROUP)),
        }
    }

    /// The number itself where there is no name.
    pub fn user(&self, uid: u32) -> String {
        self.users
            .get(&uid)
            .cloned()
            .unwrap_or_else(|| uid.to_string())
    }

    pub fn group(&self, gid: u32) -> String {
        self.groups
            .get(&gid)
            .cloned()
            .unwrap_or_else(|| gid.to_string())
    }
}

/// Lossy, because one odd comment must not hide all users.
fn read(path: &str) -> String {
    fs::read(path)
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .unwrap_or_default()
}

fn find_user(passwd: &str, wanted: &str) -> Option<User> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields
            .next()
            .filter(|name| *name == wanted && !name.is_empty())?;
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        let home = fields.nth(1)?;
        let home = if home.is_empty() { "/" } else { home };
        Some(User {
            name: name.to_owned(),
            uid,
            gid,
            home: home.to_owned(),
        })
    })
}

fn find_group(group: &str, wanted: &str) -> Option<u32> {
    group.lines().find_map(|line| {
        let mut fields = line.split(':');
        fields
            .next()
            .filter(|name| *name == wanted && !name.is_empty())?;
        fields.nth(1)?.parse().ok()
    })
}

fn groups_of(group: &str, user: &str, primary: u32) -> Vec<u32> {
    let mut groups = vec![primary];
    for line in group.lines() {
        let mut fields = line.split(':').skip(2);
        let Some(Ok(gid)) = fields.next().map(str::parse) else {
            continue;
        };
        let member = fields
            .next()
            .is_some_and(|list| list.split(',').any(|name| name == user));
        if member && !groups.contains(&gid) {
            groups.push(gid);
        }
    }
    groups
}

/// The first name of a number wins, as with `getpwuid`.
fn names(database: &str) -> HashMap<u32, String> {
    let mut names = HashMap::new();
    for line in database.lines() {
        let mut fields = line.split(':');
        let (Some(name), Some(Ok(id))) = (fields.next(), fields.nth(1).map(str::parse)) else {
            continue;
        };
        names.entry(id).or_insert_with(|| name.to_owned());
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\nbroken\n:x:5:5::/:\n\
                          toor:x:0:0::/root:/bin/sh\nuser:x:1000:1001:,,,:/home/user:/bin/bash\n\
                          odd:x:abc:1::/:/bin/sh\nbare:x:7:7:::\n";
    const GROUP: &str = "root:x:0:\nsudo:x:27:user,other\nuser:x:1001:user\nbad:x:q:user\n\
                         docker:x:999:other,user\n";

    #[test]
    fn lookups() {
        let user = find_user(PASSWD, "user").unwrap();
        assert_eq!(
            (user.uid, user.gid, user.home.as_str()),
            (1000, 1001, "/home/user")
        );
        assert_eq!(find_user(PASSWD, "bare").unwrap().home, "/");
        for missing in ["", "nobody", "odd", "broken", "use"] {
            assert_eq!(find_user(PASSWD, missing), None, "{missing}");
        }
    }

    #[test]
    fn groups_by_name() {
        assert_eq!(find_group(GROUP, "docker"), Some(999));
        for missing in ["", "bad", "dock", "x"] {
            assert_eq!(find_group(GROUP, missing), None, "{missing}");
        }
    }

    #[test]
    fn primary_group_comes_first_and_once() {
        assert_eq!(groups_of(GROUP, "user", 1001), [1001, 27, 999]);
        assert_eq!(groups_of("", "user", 5), [5]);
    }

    #[test]
    fn numbers_without_names_stay_numbers() {
        let names = Names {
            users: names(PASSWD),
            groups: names(GROUP),
        };
        assert_eq!(names.user(0), "root");
        assert_eq!(names.user(4711), "4711");
        assert_eq!(names.group(27), "sudo");
    }
}
