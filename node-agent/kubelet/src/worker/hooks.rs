//! Runs postStart and preStop handlers.

use std::time::Duration;

use proto_api::types::core::v1::{Container, LifecycleHandler};

use super::Context;
use crate::probe::{HttpTarget, port_number};

/// Runs a handler to its end. `id` is the container's, `limit` bounds a command.
pub(super) async fn run(
    context: &Context,
    handler: &LifecycleHandler,
    container: &Container,
    id: &str,
    pod_ips: &[String],
    limit: Duration,
) -> Result<(), String> {
    if let Some(exec) = &handler.exec {
        let _lane = context
            .execs
            .acquire()
            .await
            .map_err(|error| error.to_string())?;
        let ran = context
            .runtime
            .exec_sync(id, exec.command.clone(), limit)
            .await;
        let ran = ran.map_err(|error| error.to_string())?;
        return if ran.exit_code == 0 {
            Ok(())
        } else {
            Err(format!(
                "command '{}' exited with {}: {}",
                exec.command.join(" "),
                ran.exit_code,
                String::from_utf8_lossy(&ran.output)
            ))
        };
    }
    if let Some(sleep) = &handler.sleep {
        let seconds = u64::try_from(sleep.seconds).unwrap_or(0);
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        return Ok(());
    }
    if let Some(http) = &handler.http_get {
        let pod_ip = pod_ips.first().map(String::as_str).unwrap_or_default();
        let target = HttpTarget::new(http, container, pod_ip)?;
        return context.http.get(&target, limit).await.map(drop);
    }
    if let Some(tcp) = &handler.tcp_socket {
        // Upstream never implemented it for hooks; a port that cannot be named is still an error.
        return port_number(&tcp.port, container).map(drop);
    }
    Ok(())
}
