//! casemate-wire.
