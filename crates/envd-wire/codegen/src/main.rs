//! Makes `../src/generated/*.rs` from `../proto/*.proto`. Run it in this folder after a change:
//! `cargo run`. No `protoc` and no build script; the result is checked in and reviewed.

use std::error::Error;
use std::fs;
use std::path::Path;

use buffa::Message;
use buffa_codegen::generated::descriptor::FileDescriptorSet;
use buffa_codegen::{BytesRepr, CodeGenConfig};

const FILES: [&str; 2] = ["filesystem.proto", "process.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let encoded = protox::Compiler::new([here.join("../proto")])?
        .include_imports(true)
        .include_source_info(true)
        .open_files(FILES)?
        .encode_file_descriptor_set();
    let set = FileDescriptorSet::decode_from_slice(&encoded)?;

    let mut config = CodeGenConfig::default();
    config.generate_views = false;
    config.preserve_unknown_fields = false;
    config.generate_json = true;
    config.generate_with_setters = false;
    config.emit_register_fn = false;
    config.file_per_package = true;
    config.idiomatic_imports = true;
    // Output chunks are shared by all readers of a process without a copy.
    config.bytes_fields.push((".".to_owned(), BytesRepr::Bytes));

    let files: Vec<String> = FILES.iter().map(|file| (*file).to_owned()).collect();
    let out = here.join("../src/generated");
    fs::create_dir_all(&out)?;
    for file in buffa_codegen::generate(&set.file, &files, &config)? {
        fs::write(out.join(&file.name), file.content)?;
    }
    Ok(())
}
