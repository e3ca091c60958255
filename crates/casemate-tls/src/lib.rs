//! TLS in front of the edge: where certificates come from, and the handshakes of clients.
//!
//! Owns: a small authority of the installation's own, certificates from files, certificates by
//! ACME, which certificate is shown now, bounds on handshakes, and the plain listener that answers
//! challenges and sends browsers to https. What comes out is a byte stream for who speaks HTTP.
//!
//! It must not know the edge, routing, settings or the data directory's layout: paths and names are
//! given. Where things run is the caller's to decide: whoever holds the authority's key or reads
//! the operator's files need not be who shakes hands with clients, and sends it a [`Pair`].
//!
//! ```text
//!  Authority ─┐
//!  Files ─────┼─▶ Pair ──(checked)──▶ Current ◀── Doorman ── clients
//!  Acme ──────┘                                      └──▶ streams, for the edge
//! ```

pub mod acme;
mod authority;
mod current;
mod doorman;
mod files;
mod handshakes;
mod pair;
mod redirect;
mod service;
mod validity;

pub use authority::{Authority, AuthorityError, Names};
pub use current::Current;
pub use doorman::{Doorman, DoormanLimits, Greeted};
pub use files::{Files, FilesError};
pub use pair::{Checked, Pair, PairError};
pub use redirect::Redirect;
pub use service::ServiceTls;
pub use validity::Validity;
