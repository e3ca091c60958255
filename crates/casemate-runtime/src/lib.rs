//! casemate-runtime.
