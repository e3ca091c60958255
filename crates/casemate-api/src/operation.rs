//! One row for each operation: how it is reached, who may use it, what answers.
//!
//! The router, the OpenAPI document and the authorization test are all made from these rows, so
//! that no operation can be served without an access rule.

use axum::handler::Handler;
use axum::http::Method;
use axum::routing::{MethodFilter, MethodRouter, on};
use casemate_control::auth::{Access, WhenBlocked};

use crate::router::ApiState;

/// Whether it does something, or says that it does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// In the OpenAPI document.
    Served,
    /// Decision 12: a place holder with a plain answer.
    NotYet,
}

pub(crate) struct Operation {
    pub(crate) method: Method,
    /// In axum's and OpenAPI's common form.
    pub(crate) path: &'static str,
    pub(crate) access: Access,
    pub(crate) when_blocked: WhenBlocked,
    pub(crate) kind: Kind,
    /// It may take longer than requests do, and bounds its time itself.
    pub(crate) is_long: bool,
    pub(crate) handler: MethodRouter<ApiState>,
}

impl Operation {
    /// An operation that a blocked team may not use.
    pub(crate) fn new<H, T>(
        method: Method,
        path: &'static str,
        access: Access,
        kind: Kind,
        handler: H,
    ) -> Self
    where
        H: Handler<T, ApiState>,
        T: 'static,
    {
        let filter = MethodFilter::try_from(method.clone())
            .expect("the table names only methods that axum routes");
        Self {
            method,
            path,
            access,
            when_blocked: WhenBlocked::Refused,
            kind,
            is_long: false,
            handler: on(filter, handler),
        }
    }

    pub(crate) fn served<H, T>(
        method: Method,
        path: &'static str,
        access: Access,
        handler: H,
    ) -> Self
    where
        H: Handler<T, ApiState>,
        T: 'static,
    {
        Self::new(method, path, access, Kind::Served, handler)
    }

    /// Reading or ending what exists: open to blocked teams.
    pub(crate) fn also_when_blocked(mut self) -> Self {
        self.when_blocked = WhenBlocked::Allowed;
        self
    }

    /// Bounds its time itself.
    pub(crate) fn long(mut self) -> Self {
        self.is_long = true;
        self
    }
}
