//! Names of members in certificates.

use casemate_rpc::control::{Member, MemberRole};

/// Below this, certificates name members. Nothing resolves it.
const ZONE: &str = "casemate.internal";
/// Longest name of a member: a label of the domain name system.
pub const MEMBER_NAME_MAX: usize = 63;

/// Lower-case letters, digits and hyphens, not first or last; so that it is a label.
pub fn is_member_name(name: &str) -> bool {
    let is_label = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=MEMBER_NAME_MAX).contains(&name.len())
        && name.bytes().all(is_label)
        && !name.starts_with('-')
        && !name.ends_with('-')
}

/// What stands in the member's certificate.
pub(crate) fn host_of(member: &Member) -> String {
    format!("{}.{}.{ZONE}", member.name, member.role)
}

/// What any member of a role shows beside it: whoever looks for one does not know which answers.
pub(crate) fn host_of_role(role: MemberRole) -> String {
    format!("{role}.{ZONE}")
}

/// Who shows such a name; `None` for those of a whole role.
pub(crate) fn member_of(host: &str) -> Option<Member> {
    let (name, role) = host
        .strip_suffix(ZONE)?
        .strip_suffix('.')?
        .split_once('.')?;
    let role = match role {
        "api" => MemberRole::Api,
        "edge" => MemberRole::Edge,
        "node" => MemberRole::Node,
        _ => return None,
    };
    is_member_name(name).then(|| Member {
        role,
        name: name.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_labels_and_lead_back_to_their_members() {
        for good in ["a", "node-1", "0", &"x".repeat(63)] {
            assert!(is_member_name(good), "{good}");
            for role in [MemberRole::Api, MemberRole::Edge, MemberRole::Node] {
                let name = good.to_owned();
                let member = Member { role, name };
                assert_eq!(member_of(&host_of(&member)), Some(member));
            }
        }
        for bad in ["", "-a", "a-", "A", "a.b", "a_b", "ä", &"x".repeat(64)] {
            assert!(!is_member_name(bad), "{bad}");
        }
        for bad in [
            "api.casemate.internal",
            "a.other.casemate.internal",
            "a.b.node.casemate.internal",
            "a.node.casemate.internal.example",
            "a.node.casemate-internal",
        ] {
            assert_eq!(member_of(bad), None, "{bad}");
        }
    }
}
