//! envd-wire.
