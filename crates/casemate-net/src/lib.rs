//! casemate-net.
