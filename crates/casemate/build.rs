//! Takes the static programs into ours, so that one file is all that a machine needs.
//!
//! They are built first, by a call of its own (`build_static` in `scripts/machine.sh`: small, other
//! flags). A build without them is one for checks: the program then wants environment variables to
//! name them, `CASEMATE_ENVD` and `CASEMATE_LAUNCHER`.

use std::path::{Path, PathBuf};
use std::{env, fs};

const BUILT: &str = "../../target/guest/x86_64-unknown-linux-gnu/guest";

const PROGRAMS: [(&str, &str); 2] = [
    ("envd", "CASEMATE_ENVD_EMBED"),
    ("casemate-launcher", "CASEMATE_LAUNCHER_EMBED"),
];

fn main() {
    let ours = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("set by cargo"));
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("set by cargo"));
    for (name, variable) in PROGRAMS {
        println!("cargo:rerun-if-env-changed={variable}");
        let built = env::var_os(variable)
            .map_or_else(|| ours.join(Path::new(BUILT)).join(name), PathBuf::from);
        println!("cargo:rerun-if-changed={}", built.display());
        let bytes = fs::read(&built).unwrap_or_default();
        fs::write(out.join(name), bytes).expect("the output folder can be written");
    }
}
