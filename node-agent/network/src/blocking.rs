//! Datapath calls off the async workers: they are system calls that do not wait, but not free.

use node_agent_datapath::pods::PodError;

/// Runs `work` on a blocking thread. A panic there goes on here.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, PodError> + Send + 'static,
) -> Result<T, PodError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // Cancelled before it began: the runtime is going away, and this task with it.
            Err(_cancelled) => std::future::pending().await,
        },
    }
}
