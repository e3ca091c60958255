//! casemate-ops.
