//! casemate-control.
