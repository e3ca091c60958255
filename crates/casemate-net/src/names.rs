//! Names that an instance puts on the host: every one carries the instance. Pure.

use casemate_types::InstanceId;

/// Links have 15 bytes at most, so they carry the first six of the instance's eight characters.
const LINK_INSTANCE_CHARS: usize = 6;

/// What the host's ends of all slots of all instances begin with.
pub(crate) const ANY_LINK_PREFIX: &str = "cm";
/// What the tables of all instances begin with.
pub(crate) const TABLE_PREFIX: &str = "casemate_";

/// The host-global names of one instance.
#[derive(Debug, Clone)]
pub(crate) struct Names {
    instance: InstanceId,
}

impl Names {
    pub(crate) fn new(instance: InstanceId) -> Self {
        Self { instance }
    }

    /// The table of the packet filter, in family `inet`.
    pub(crate) fn table(&self) -> String {
        format!("{TABLE_PREFIX}{}", self.instance)
    }

    /// What the host's ends of all slots begin with.
    pub(crate) fn link_prefix(&self) -> String {
        format!("cm{}-", &self.instance.as_str()[..LINK_INSTANCE_CHARS])
    }

    /// The host's end of a slot.
    pub(crate) fn link(&self, index: u16) -> String {
        format!("{}{}", self.link_prefix(), base36(index))
    }

    /// The label of the gateway's address.
    pub(crate) fn gateway_label(&self) -> String {
        format!("lo:cm{}", &self.instance.as_str()[..LINK_INSTANCE_CHARS])
    }

    /// The slot that a link of the host belongs to.
    pub(crate) fn link_index(&self, link: &str) -> Option<u16> {
        let digits = link.strip_prefix(&self.link_prefix())?;
        let index = u16::from_str_radix(digits, 36).ok()?;
        // One name a slot: no leading zeros, no upper case.
        (base36(index) == digits).then_some(index)
    }
}

fn base36(number: u16) -> String {
    let mut digits = Vec::new();
    let mut rest = u32::from(number);
    loop {
        digits.push(char::from_digit(rest % 36, 36).expect("a remainder of 36 is a digit"));
        rest /= 36;
        if rest == 0 {
            return digits.into_iter().rev().collect();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_and_are_found_again() {
        let names = Names::new(InstanceId::parse("ab12cd34").unwrap());
        assert_eq!(names.table(), "casemate_ab12cd34");
        for index in [0, 9, 35, 36, 4092, u16::MAX] {
            let link = names.link(index);
            assert!(link.len() <= 15, "{link}");
            assert_eq!(names.link_index(&link), Some(index), "{link}");
        }
        assert_eq!(names.link(36), "cmab12cd-10");
    }

    #[test]
    fn other_links_are_nobodys() {
        let names = Names::new(InstanceId::parse("ab12cd34").unwrap());
        for link in [
            "eth0",
            "cmab12ce-1",
            "cmab12cd-",
            "cmab12cd-01",
            "cmab12cd-A",
            "cmab12cd",
        ] {
            assert_eq!(names.link_index(link), None, "{link}");
        }
    }
}
