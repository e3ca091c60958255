//! Who belongs to a cluster, and connections between its machines.
//!
//! Owns the cluster's private authority, the short-lived certificates that it gives to members,
//! tokens with which machines join, and mutual TLS 1.3 between members: who is at the other end is
//! known before a byte is read. It must not know what is said over the connections, stores or HTTP.
//!
//! A member is named by its certificate alone: `NAME.ROLE.casemate.internal`. There is no list of
//! revoked certificates: they hold for [`authority::CERTIFICATE_HOURS`], and who was removed gets no
//! other.

pub mod authority;
pub mod control;
pub mod crowd;
pub mod identity;
pub mod listener;
mod names;
pub mod peers;
pub mod token;

pub use authority::{Authority, AuthorityError};
pub use control::ControlServers;
pub use crowd::{Crowd, Seldom, Shares};
pub use identity::{Identity, IdentityError, MemberKey};
pub use listener::{Arrivals, At};
pub use names::{MEMBER_NAME_MAX, is_member_name};
pub use peers::{Accepted, NodeConnector, PeerError, Peers};
pub use token::{JoinToken, TokenError};
