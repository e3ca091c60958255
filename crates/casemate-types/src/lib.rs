//! casemate-types.
