//! `cargo codegen`: Rust from the .proto files, by a protobuf compiler written in Rust.
//!
//! What it writes is committed, so that nobody who builds the workspace needs a protobuf compiler of any kind.
//! Messages of `feast.core` become plain prost structs; in `feast.registry`, the wire contract, the twelve kinds of
//! object stand as `Encoded<T>`: bytes that pass through undecoded. `feast_registry.v1`, our own service, is of neither.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use prost::Message;

/// The registry's objects, which the wire contract carries as they were serialized.
const ENCODED: [&str; 14] = [
    "DataSource",
    "Entity",
    "FeatureService",
    "FeatureView",
    "Infra",
    "LabelView",
    "OnDemandFeatureView",
    "Permission",
    "Project",
    "ProjectMetadata",
    "Registry",
    "SavedDataset",
    "StreamFeatureView",
    "ValidationReference",
];

/// Generates the sources, or with `check` fails when what is committed is not what would be generated.
pub(crate) fn run(root: &Path, check: bool) -> Result<()> {
    let protos = root.join("registry-core/proto");
    let descriptors = protox::compile([protos.join("feast/registry/RegistryServer.proto")], [&protos])?;
    let out = root.join("target/codegen");
    fs::create_dir_all(&out)?;

    let mut core = prost_build::Config::new();
    core.btree_map(["."]).bytes(["."]).out_dir(&out).include_file("core.rs");
    let mut core_files = descriptors.clone();
    core_files.file.retain(|file| file.package() != "feast.registry");
    core.compile_fds(core_files)?;

    let mut service = tonic_prost_build::Config::new();
    service.btree_map(["."]).bytes(["."]).extern_path(".feast.core", "::feast_registry_core::proto::core");
    for message in ENCODED {
        service.extern_path(
            format!(".feast.core.{message}"),
            format!("::feast_registry_core::Encoded<::feast_registry_core::proto::core::{message}>"),
        );
    }
    tonic_prost_build::configure()
        .build_client(true)
        .build_transport(false)
        .codec_path("crate::codec::SizedCodec")
        .out_dir(&out)
        .compile_fds_with_config(descriptors.clone(), service)?;

    // Its own descriptors are kept apart from Feast's, which are those of registry-core.
    let own_protos = root.join("registry-server/proto");
    let own = protox::compile([own_protos.join("feast_registry/v1/history.proto")], [&own_protos])?;
    let mut history = tonic_prost_build::Config::new();
    history.btree_map(["."]).bytes(["."]);
    tonic_prost_build::configure()
        .build_client(true)
        .build_transport(false)
        .codec_path("crate::codec::SizedCodec")
        .out_dir(&out)
        .compile_fds_with_config(own.clone(), history)?;

    let generated = [
        ("feast.core.rs", "registry-core/src/proto/feast.core.rs"),
        ("feast.types.rs", "registry-core/src/proto/feast.types.rs"),
        ("feast.registry.rs", "registry-server/src/proto/feast.registry.rs"),
        ("feast_registry.v1.rs", "registry-server/src/proto/feast_registry.v1.rs"),
    ];
    for (from, to) in generated {
        let source = fs::read_to_string(out.join(from)).with_context(|| format!("{from} was not generated"))?;
        put(root.join(to), source.as_bytes(), check)?;
    }
    put(root.join("registry-server/src/proto/history.bin"), &own.encode_to_vec(), check)?;
    put(root.join("registry-core/src/proto/descriptors.bin"), &descriptors.encode_to_vec(), check)
}

fn put(path: PathBuf, content: &[u8], check: bool) -> Result<()> {
    if check {
        ensure!(
            fs::read(&path).is_ok_and(|committed| committed == content),
            "{} is not what the .proto files generate: run `cargo codegen` and commit the result",
            path.display()
        );
        return Ok(());
    }
    fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))
}
