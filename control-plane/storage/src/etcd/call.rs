//! Why a call to etcd gave no answer, and what that means for the caller.

use std::time::Duration;

use etcd_client::Error;

use crate::error::{CommitError, StoreError};

/// Why a call to etcd gave no answer.
#[derive(Debug)]
pub(crate) enum CallError {
    Etcd(Error),
    Timeout(Duration),
}

impl CallError {
    pub(crate) fn fault(self, what: &str) -> StoreError {
        match self {
            Self::Etcd(error) => StoreError::with(what, error),
            Self::Timeout(after) => StoreError::new(format!("{what}: no answer within {after:?}")),
        }
    }

    fn status(&self) -> Option<&tonic::Status> {
        match self {
            Self::Etcd(Error::GRpcStatus(status)) => Some(status),
            Self::Etcd(_) | Self::Timeout(_) => None,
        }
    }

    fn says(&self, code: tonic::Code, words: &str) -> bool {
        self.status()
            .is_some_and(|status| status.code() == code && status.message().contains(words))
    }

    /// Whether another member might do better: this one is down, silent, or without a leader.
    pub(crate) fn is_members_fault(&self) -> bool {
        use tonic::Code;
        match self {
            Self::Timeout(_) => true,
            Self::Etcd(Error::GRpcStatus(status)) => matches!(
                status.code(),
                Code::Unavailable
                    | Code::Unknown
                    | Code::Internal
                    | Code::Cancelled
                    | Code::DeadlineExceeded
            ),
            Self::Etcd(error) => matches!(error, Error::TransportError(_) | Error::IoError(_)),
        }
    }

    /// Whether the call certainly never reached the cluster: there was no connection, or the member
    /// refused it because it had no leader (it does so before it looks at the call).
    pub(crate) fn is_not_done(&self) -> bool {
        self.says(tonic::Code::Unavailable, "connect error")
            || self.says(tonic::Code::Unavailable, "etcdserver: no leader")
    }

    pub(crate) fn is_compacted(&self) -> bool {
        self.says(tonic::Code::OutOfRange, "has been compacted")
    }

    pub(crate) fn is_future(&self) -> bool {
        self.says(tonic::Code::OutOfRange, "future revision")
    }

    pub(crate) fn is_lease_missing(&self) -> bool {
        self.says(tonic::Code::NotFound, "lease not found")
    }

    /// Our own bound on an answer, not a fault of the server.
    pub(crate) fn is_oversize(&self) -> bool {
        self.says(tonic::Code::OutOfRange, "message length too large")
            || self.says(tonic::Code::OutOfRange, "decoded message length")
    }

    /// Only what the server certainly refused before it looked at the keys is "not written".
    pub(crate) fn into_commit(self) -> CommitError {
        use tonic::Code;
        let refused = self.status().is_some_and(|status| {
            matches!(
                status.code(),
                Code::ResourceExhausted
                    | Code::InvalidArgument
                    | Code::PermissionDenied
                    | Code::Unauthenticated
                    | Code::Unimplemented
            )
        });
        let refused = refused || self.is_not_done();
        let fault = self.fault("commit to etcd");
        if refused {
            CommitError::Unavailable(fault)
        } else {
            CommitError::Unknown(fault)
        }
    }
}
