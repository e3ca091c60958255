//! Rebuilds when a migration is added: `migrate!` alone sees only changes to those it knows.

fn main() {
    println!("cargo:rerun-if-changed=migrations");
}
