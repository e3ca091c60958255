//! Finding the process that a call means.

use std::rc::Rc;

use envd_wire::process::ProcessSelector;
use envd_wire::process::process_selector::Selector;

use super::live::Process;
use super::table::ProcessTable;
use crate::connect::{Code, RpcError};

/// What a call says.
pub fn read(selector: Option<&ProcessSelector>) -> Result<Selector, RpcError> {
    selector
        .and_then(|selector| selector.selector.clone())
        .ok_or_else(|| RpcError::new(Code::Unimplemented, "invalid input type <nil>"))
}

/// The live process of a selector.
pub fn find(table: &ProcessTable, selector: &Selector) -> Result<Rc<Process>, RpcError> {
    let found = match selector {
        Selector::Pid(pid) => table.by_pid(*pid),
        Selector::Tag(tag) => table.by_tag(tag),
    };
    found.ok_or_else(|| missing(selector))
}

pub fn missing(selector: &Selector) -> RpcError {
    RpcError::not_found(match selector {
        Selector::Pid(pid) => format!("process with pid {pid} not found"),
        Selector::Tag(tag) => format!("process with tag {tag} not found"),
    })
}

/// Both in one, for calls that mean live processes only.
pub fn live(
    table: &ProcessTable,
    selector: Option<&ProcessSelector>,
) -> Result<Rc<Process>, RpcError> {
    find(table, &read(selector)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors() {
        let table = ProcessTable::default();
        let none = read(None).unwrap_err();
        assert_eq!(none.code, Code::Unimplemented);
        assert_eq!(read(Some(&ProcessSelector::default())).unwrap_err(), none);
        for (selector, text) in [
            (Selector::Pid(7), "process with pid 7 not found"),
            (
                Selector::Tag("a".to_owned()),
                "process with tag a not found",
            ),
        ] {
            let error = find(&table, &selector).err().unwrap();
            assert_eq!((error.code, error.message.as_str()), (Code::NotFound, text));
        }
    }
}
