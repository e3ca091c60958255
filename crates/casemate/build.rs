//! Takes the agent's binary into ours, so that one file is all that a machine needs.
//!
//! The agent is built first, by a call of its own (static, small, other flags). A build without it
//! is one for checks: the program then wants `CASEMATE_ENVD` to name one.

use std::path::{Path, PathBuf};
use std::{env, fs};

const BUILT: &str = "../../target/guest/x86_64-unknown-linux-gnu/guest/envd";

fn main() {
    println!("cargo:rerun-if-env-changed=CASEMATE_ENVD_EMBED");
    let built = env::var_os("CASEMATE_ENVD_EMBED").map_or_else(
        || Path::new(&env::var_os("CARGO_MANIFEST_DIR").expect("set by cargo")).join(BUILT),
        PathBuf::from,
    );
    println!("cargo:rerun-if-changed={}", built.display());
    let to = Path::new(&env::var_os("OUT_DIR").expect("set by cargo")).join("envd");
    match fs::read(&built) {
        Ok(bytes) => fs::write(&to, bytes).expect("the output folder can be written"),
        Err(_) => fs::write(&to, b"").expect("the output folder can be written"),
    }
}
