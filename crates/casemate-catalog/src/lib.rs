//! casemate-catalog.
