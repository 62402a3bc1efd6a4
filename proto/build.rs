//! Generates the messages and services of `proto/` with protoc.

fn main() -> std::io::Result<()> {
    tonic_prost_build::configure()
        .bytes(".skep.agent.v1.Upsert.body")
        .bytes(".skep.agent.v1.SessionUp")
        .bytes(".skep.agent.v1.SessionDown")
        .compile_protos(
            &["proto/skep/agent/v1/agent.proto", "proto/skep/inspect/v1/inspect.proto"],
            &["proto"],
        )
}
