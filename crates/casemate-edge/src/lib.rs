//! casemate-edge.
