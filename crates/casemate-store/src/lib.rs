//! casemate-store.
