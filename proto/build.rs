//! Compiles the `.proto` files without protoc and keeps the descriptor set: with comments for reflection and descriptions,
//! without them for the JSON dialect, whose every process decodes it at start.

use std::{env, fs, path::PathBuf};

use prost::Message as _;

#[expect(
    clippy::disallowed_methods,
    reason = "cargo talks to build scripts through the environment"
)]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    let folder = root.join("muster/v1");
    println!("cargo:rerun-if-changed={}", folder.display());
    let mut files: Vec<PathBuf> = fs::read_dir(&folder)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()?;
    files.sort();

    let mut compiler = protox::Compiler::new([&root])?;
    compiler
        .include_imports(true)
        .include_source_info(true)
        .open_files(&files)?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    // Encoded by protox and not through prost's types, which would drop the options they do not know.
    let encoded = compiler.encode_file_descriptor_set();
    fs::write(out.join("described.bin"), &encoded)?;
    let bare = compiler.include_source_info(false).encode_file_descriptor_set();
    fs::write(out.join("descriptors.bin"), bare)?;

    let set = prost_types::FileDescriptorSet::decode(encoded.as_slice())?;
    // Full names of messages, by which the JSON dialect finds their descriptors.
    let mut config = tonic_prost_build::Config::new();
    config.enable_type_names();
    tonic_prost_build::configure()
        .bytes(".muster.v1.Signed.payload")
        .btree_map(".")
        .codec_path("crate::codec::LeanCodec")
        .compile_fds_with_config(set, config)?;
    Ok(())
}
