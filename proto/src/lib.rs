//! What crosses a process boundary: the node stream, operator inspection, the runtime interface.
//!
//! Owns: generated messages and clients. Must not know: what anybody does with them.

/// Node agent and control plane.
pub mod agent {
    /// Version 1.
    #[expect(
        unused_qualifications,
        clippy::allow_attributes,
        clippy::allow_attributes_without_reason,
        clippy::clone_on_ref_ptr,
        clippy::too_many_lines,
        reason = "generated from agent.proto"
    )]
    pub mod v1 {
        tonic::include_proto!("skep.agent.v1");
    }
}

/// Operator's command and node agent.
pub mod inspect {
    /// Version 1.
    #[expect(
        unused_qualifications,
        clippy::allow_attributes,
        clippy::allow_attributes_without_reason,
        clippy::clone_on_ref_ptr,
        clippy::too_many_lines,
        reason = "generated from inspect.proto"
    )]
    pub mod v1 {
        tonic::include_proto!("skep.inspect.v1");
    }
}

/// The container runtime interface (CRI), as Kubernetes publishes it.
pub mod cri {
    /// Version 1.
    #[expect(
        rustdoc::invalid_html_tags,
        unused_qualifications,
        clippy::all,
        clippy::allow_attributes,
        clippy::allow_attributes_without_reason,
        reason = "generated from api.proto"
    )]
    pub mod v1 {
        tonic::include_proto!("runtime.v1");
    }
}
