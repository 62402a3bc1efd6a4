//! Generates the messages and services of `proto/` with protoc.

fn main() -> std::io::Result<()> {
    tonic_prost_build::configure()
        .bytes(".skep.agent.v1.Upsert.body")
        .bytes(".skep.agent.v1.SessionUp")
        .bytes(".skep.agent.v1.SessionDown")
        .compile_protos(
            &[
                "proto/skep/agent/v1/agent.proto",
                "proto/skep/inspect/v1/inspect.proto",
            ],
            &["proto"],
        )?;
    // The container runtime's side of CRI is never ours: client only.
    tonic_prost_build::configure()
        .build_server(false)
        .compile_protos(&["proto/cri/runtime/v1/api.proto"], &["proto/cri"])
}
