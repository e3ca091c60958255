//! `List`: the live processes that were started here.

use envd_wire::process::{ListRequest, ListResponse, ProcessInfo};

use crate::connect::{Context, RpcError};

pub async fn list(context: Context, _: ListRequest) -> Result<ListResponse, RpcError> {
    let processes = context
        .guest
        .processes
        .all()
        .iter()
        .map(|process| ProcessInfo {
            config: process.config.clone().into(),
            pid: process.pid,
            tag: process.tag.clone(),
        })
        .collect();
    Ok(ListResponse { processes })
}
