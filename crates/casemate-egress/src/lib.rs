//! casemate-egress.
