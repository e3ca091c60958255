//! Makes a base archive: `cargo run -p casemate-build --example base -- FILE`.

use std::error::Error;
use std::path::{Path, PathBuf};

use casemate_build::{Progress, base};

struct Printed;

impl Progress for Printed {
    fn step(&self, percent: u8, stage: &str) {
        eprintln!("{percent:3} % {stage}");
    }

    fn line(&self, text: &str) {
        eprintln!("      {text}");
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let file = std::env::args_os().nth(1).map(PathBuf::from);
    let file = file.ok_or("usage: base FILE (.tar, .tar.gz or .tar.zst)")?;
    let work_dir = file
        .parent()
        .filter(|dir| *dir != Path::new(""))
        .unwrap_or(Path::new("."));
    match base::make_archive(&file, work_dir, &Printed) {
        Ok(manifest) => println!("{}", serde_json::to_string_pretty(&manifest)?),
        Err(error) => {
            eprintln!("{error}");
            let mut source = error.source();
            while let Some(cause) = source {
                eprintln!("  because: {cause}");
                source = cause.source();
            }
            std::process::exit(1);
        }
    }
    Ok(())
}
