//! Names of owners and groups, as the sandbox has them.

use rustix::fs::{Gid, Uid};

use crate::build::error::BuildError;
use crate::limits::BUILD_OWNER;
use crate::users::{User, group_by_name};

/// Whose the copied files become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    pub user: Uid,
    pub group: Gid,
}

impl Owner {
    /// A name, else a number, as `chown` takes them.
    pub fn find(user: &str, group: &str) -> Result<Self, BuildError> {
        let missing = |what, name| BuildError::Asked(format!("{what} '{name}' does not exist"));
        let uid = User::by_name(user).map(|user| user.uid);
        let uid = uid.or_else(|| number(user));
        let gid = group_by_name(group).or_else(|| number(group));
        Ok(Self {
            user: Uid::from_raw(uid.ok_or_else(|| missing("user", user))?),
            group: Gid::from_raw(gid.ok_or_else(|| missing("group", group))?),
        })
    }
}

fn number(text: &str) -> Option<u32> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit());
    let id = text.parse().ok().filter(|_| plain)?;
    (id <= BUILD_OWNER).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        let root = Owner::find("root", "0").unwrap();
        assert_eq!((root.user, root.group), (Uid::ROOT, Gid::ROOT));
        let numbers = Owner::find("4711", "65535").unwrap();
        assert_eq!(
            (numbers.user.as_raw(), numbers.group.as_raw()),
            (4711, 65_535)
        );
        for (user, group, words) in [
            ("no-such", "root", "user 'no-such' does not exist"),
            ("65536", "root", "user '65536' does not exist"),
            ("+1", "root", "user '+1' does not exist"),
            ("root", "no-such", "group 'no-such' does not exist"),
        ] {
            assert_eq!(Owner::find(user, group).unwrap_err().to_string(), words);
        }
    }
}
