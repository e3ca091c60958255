//! casemate-node.
