//! Who this node is: its key, its certificate, how it gets the first one and the next.
//!
//! Files in the PKI directory, both 0600: `node.key` and `node.crt`. The key never leaves the node.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use proto::agent::v1::node_link_client::NodeLinkClient;
use proto::agent::v1::{JoinRequest, RenewRequest};
use rcgen::{CertificateParams, DnType, KeyPair};
use tempfile::NamedTempFile;
use tokio_util::sync::CancellationToken;
use tonic::Code;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tracing::{info, warn};

use super::{
    KEEPALIVE_INTERVAL, KEEPALIVE_TIMEOUT, Link, LinkConfig, MESSAGE_SIZE_MAX, RECONNECT_PAUSE_MAX,
    RECONNECT_PAUSE_MIN,
};

/// Share of a certificate's life after which it is renewed, percent; a random part of the next
/// [`RENEW_SPREAD_PERCENT`] is added so that nodes do not come together.
const RENEW_AT_PERCENT: u32 = 70;
/// See [`RENEW_AT_PERCENT`].
const RENEW_SPREAD_PERCENT: u32 = 15;
/// Pause after a renewal that failed.
const RENEW_RETRY: Duration = Duration::from_secs(60);

/// Why this node has no identity.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// A file that must be readable is not.
    #[error("cannot read {what} {path}")]
    Read {
        /// What the file holds.
        what: &'static str,
        /// Where it is.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file that must be written cannot be.
    #[error("cannot write {path}")]
    Write {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The key pair or signing request could not be made.
    #[error("cannot make this node's key and certificate request")]
    Key(#[from] rcgen::Error),
    /// The address or the TLS settings are wrong.
    #[error("cannot use the control plane's address {address}")]
    Address {
        /// As configured.
        address: String,
        /// Why.
        #[source]
        source: tonic::transport::Error,
    },
    /// The control plane refused this node.
    #[error(
        "the control plane {address} refused to let node {node} join: {reason}. Is the token in \
         {token_file} of this cluster and still valid?"
    )]
    Refused {
        /// Control plane.
        address: String,
        /// This node.
        node: String,
        /// What it said.
        reason: String,
        /// Where the token came from.
        token_file: PathBuf,
    },
}

/// Key and certificate of this node, PEM.
#[derive(Debug, Clone)]
pub struct Identity {
    key: String,
    certificate: String,
}

impl Identity {
    /// Loads the identity from disk, or joins and stores it. `turn`: which control plane to ask
    /// first; answers which one to go on with.
    pub(crate) async fn obtain(
        config: &LinkConfig,
        mut turn: usize,
    ) -> Result<(Self, usize), JoinError> {
        if let Some(identity) = load(&config.pki_dir)? {
            return Ok((identity, turn));
        }
        let token = read("join token", &config.join_token_file)?;
        let (key, csr) = request(&config.node_name)?;
        let request = JoinRequest {
            token: token.trim().to_owned(),
            node_name: config.node_name.clone(),
            csr,
        };
        let mut pause = RECONNECT_PAUSE_MIN;
        loop {
            let mut client = client_with(config, turn, None)?;
            match client.join(request.clone()).await {
                Ok(answer) => {
                    let certificate = answer.into_inner().certificate;
                    let identity = Self { key, certificate };
                    store(&config.pki_dir, &identity)?;
                    info!(node = %config.node_name, "joined the cluster");
                    return Ok((identity, turn));
                }
                Err(status) if is_final(status.code()) => {
                    return Err(JoinError::Refused {
                        address: config.control_plane(turn).to_owned(),
                        node: config.node_name.clone(),
                        reason: status.message().to_owned(),
                        token_file: config.join_token_file.clone(),
                    });
                }
                Err(status) => {
                    let control_plane = config.control_plane(turn);
                    warn!(control_plane, error = %status, "waiting to join");
                    turn = turn.wrapping_add(1);
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(RECONNECT_PAUSE_MAX);
                }
            }
        }
    }
}

fn is_final(code: Code) -> bool {
    matches!(
        code,
        Code::Unauthenticated
            | Code::PermissionDenied
            | Code::InvalidArgument
            | Code::AlreadyExists
            | Code::Unimplemented
    )
}

/// A client that shows `identity`.
pub(crate) fn client(
    config: &LinkConfig,
    turn: usize,
    identity: &Identity,
) -> Result<NodeLinkClient<Channel>, JoinError> {
    client_with(config, turn, Some(identity))
}

/// A client that shows the identity on disk.
pub(crate) fn stored_client(
    config: &LinkConfig,
    turn: usize,
) -> Result<NodeLinkClient<Channel>, JoinError> {
    let identity = load(&config.pki_dir)?;
    client_with(config, turn, identity.as_ref())
}

fn client_with(
    config: &LinkConfig,
    turn: usize,
    identity: Option<&Identity>,
) -> Result<NodeLinkClient<Channel>, JoinError> {
    let ca = read("cluster CA", &config.ca_file)?;
    let mut tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(ca));
    if let Some(identity) = identity {
        tls = tls.identity(tonic::transport::Identity::from_pem(
            &identity.certificate,
            &identity.key,
        ));
    }
    let control_plane = config.control_plane(turn);
    let address = |source| JoinError::Address {
        address: control_plane.to_owned(),
        source,
    };
    let endpoint = Endpoint::from_shared(format!("https://{control_plane}"))
        .map_err(address)?
        .tls_config(tls)
        .map_err(address)?
        .connect_timeout(KEEPALIVE_TIMEOUT)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .tcp_nodelay(true);
    Ok(NodeLinkClient::new(endpoint.connect_lazy()).max_decoding_message_size(MESSAGE_SIZE_MAX))
}

/// Renews the certificate before it ends, for as long as the agent runs.
pub(crate) async fn renew_forever(link: Link, stop: CancellationToken) {
    loop {
        let wait = match load(&link.config().pki_dir) {
            Ok(Some(identity)) => renew_in(&identity.certificate).unwrap_or(RENEW_RETRY),
            Ok(None) | Err(_) => RENEW_RETRY,
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
        }
        match renew(&link).await {
            Ok(()) => info!("renewed this node's certificate"),
            Err(error) => {
                warn!(%error, "cannot renew this node's certificate yet");
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(RENEW_RETRY) => {}
                }
            }
        }
    }
}

async fn renew(link: &Link) -> Result<(), String> {
    let config = link.config();
    let (key, csr) = request(&config.node_name).map_err(|error| error.to_string())?;
    let answer = link
        .client()
        .renew(RenewRequest { csr })
        .await
        .map_err(|status| status.message().to_owned())?;
    let identity = Identity {
        key,
        certificate: answer.into_inner().certificate,
    };
    store(&config.pki_dir, &identity).map_err(|error| error.to_string())?;
    link.replace_client(client(config, link.turn(), &identity).map_err(|error| error.to_string())?);
    Ok(())
}

/// Time until `certificate` (PEM) should be renewed; zero when that time has passed.
fn renew_in(certificate: &str) -> Option<Duration> {
    let (_, pem) = x509_parser::pem::parse_x509_pem(certificate.as_bytes()).ok()?;
    let parsed = pem.parse_x509().ok()?;
    let seconds = |time: x509_parser::time::ASN1Time| u64::try_from(time.timestamp()).ok();
    let from = seconds(parsed.validity().not_before)?;
    let until = seconds(parsed.validity().not_after)?;
    let life = Duration::from_secs(until.checked_sub(from)?);
    let percent = RENEW_AT_PERCENT + rand::random_range(0..=RENEW_SPREAD_PERCENT);
    let due = SystemTime::UNIX_EPOCH + Duration::from_secs(from) + life * percent / 100;
    Some(due.duration_since(SystemTime::now()).unwrap_or_default())
}

fn request(node_name: &str) -> Result<(String, Vec<u8>), JoinError> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params
        .distinguished_name
        .push(DnType::OrganizationName, "system:nodes");
    params
        .distinguished_name
        .push(DnType::CommonName, format!("system:node:{node_name}"));
    let csr = params.serialize_request(&key)?;
    Ok((key.serialize_pem(), csr.der().to_vec()))
}

fn read(what: &'static str, path: &Path) -> Result<String, JoinError> {
    std::fs::read_to_string(path).map_err(|source| JoinError::Read {
        what,
        path: path.to_owned(),
        source,
    })
}

fn load(dir: &Path) -> Result<Option<Identity>, JoinError> {
    let (key, certificate) = (dir.join("node.key"), dir.join("node.crt"));
    if !certificate.exists() || !key.exists() {
        return Ok(None);
    }
    Ok(Some(Identity {
        key: read("node key", &key)?,
        certificate: read("node certificate", &certificate)?,
    }))
}

fn store(dir: &Path, identity: &Identity) -> Result<(), JoinError> {
    std::fs::create_dir_all(dir).map_err(|source| JoinError::Write {
        path: dir.to_owned(),
        source,
    })?;
    // The certificate last: both files are there exactly when it is.
    let certificate = dir.join("node.crt");
    if certificate.exists() {
        std::fs::remove_file(&certificate).map_err(|source| JoinError::Write {
            path: certificate.clone(),
            source,
        })?;
    }
    write_private(&dir.join("node.key"), &identity.key)?;
    write_private(&certificate, &identity.certificate)
}

fn write_private(path: &Path, text: &str) -> Result<(), JoinError> {
    let write = || -> std::io::Result<()> {
        // Only its owner can read it from the start.
        let mut file = NamedTempFile::new_in(path.parent().unwrap_or(Path::new(".")))?;
        file.write_all(text.as_bytes())?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        Ok(())
    };
    write().map_err(|source| JoinError::Write {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_stored_private_and_found_again() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        assert!(load(dir.path()).unwrap().is_none());
        let identity = Identity {
            key: "k".into(),
            certificate: "c".into(),
        };
        store(dir.path(), &identity).unwrap();
        let again = load(dir.path()).unwrap().unwrap();
        assert_eq!((again.key, again.certificate), ("k".into(), "c".into()));
        let mode = std::fs::metadata(dir.path().join("node.key"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_certificate_is_renewed_between_70_and_85_percent_of_its_life() {
        let key = KeyPair::generate().unwrap();
        let pem = CertificateParams::default()
            .self_signed(&key)
            .unwrap()
            .pem();
        let (_, parsed) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).unwrap();
        let validity = parsed.parse_x509().unwrap().validity().clone();
        let now = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap()
            .as_secs();
        let from = u64::try_from(validity.not_before.timestamp()).unwrap();
        let life = u64::try_from(validity.not_after.timestamp()).unwrap() - from;
        let due = now + renew_in(&pem).unwrap().as_secs();
        assert!(due >= from + life * 70 / 100 - 2 && due <= from + life * 85 / 100 + 2);
    }
}
