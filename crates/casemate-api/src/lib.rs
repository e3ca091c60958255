//! casemate-api.
