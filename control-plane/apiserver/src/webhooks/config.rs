//! `clientConfig`: where a webhook is, and who vouches for it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::tree;

const HTTPS: u16 = 443;

/// Where a webhook is, and the authorities of its certificate.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct ClientConfig {
    pub(crate) place: Place,
    /// PEM; none: the machine's own authorities.
    pub(crate) ca_bundle: Vec<u8>,
}

/// Where a webhook is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Place {
    /// At a URL.
    Url(String),
    /// Behind a service.
    Service {
        namespace: String,
        name: String,
        port: u16,
        /// With its slash, or empty.
        path: String,
    },
}

/// Why a `clientConfig` cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ConfigError {
    #[error("caBundle is not base64")]
    CaBundle,
    #[error("service.port {0} is not a port")]
    Port(i64),
    #[error("neither url nor service is given")]
    Nowhere,
}

impl ClientConfig {
    /// Reads a `clientConfig`.
    pub(crate) fn parse(config: &Value) -> Result<Self, ConfigError> {
        let ca_bundle = STANDARD
            .decode(tree::text(config, &["caBundle"]))
            .map_err(|_base64| ConfigError::CaBundle)?;
        let service = tree::at(config, &["service"]);
        let url = tree::text(config, &["url"]);
        let place = if service.is_object() {
            let port = tree::int(service, &["port"]).unwrap_or_else(|| HTTPS.into());
            Place::Service {
                namespace: tree::text(service, &["namespace"]).to_owned(),
                name: tree::text(service, &["name"]).to_owned(),
                port: u16::try_from(port).map_err(|_range| ConfigError::Port(port))?,
                path: tree::text(service, &["path"]).to_owned(),
            }
        } else if url.is_empty() {
            return Err(ConfigError::Nowhere);
        } else {
            Place::Url(url.to_owned())
        };
        Ok(Self { place, ca_bundle })
    }

    /// The URL that is asked; a service's host is the name that its certificate must have.
    pub(crate) fn url(&self) -> String {
        match &self.place {
            Place::Url(url) => url.clone(),
            Place::Service {
                namespace,
                name,
                port,
                path,
            } => format!("https://{name}.{namespace}.svc:{port}{path}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_service_is_asked_by_its_name_in_the_cluster() {
        let url = |config: Value| ClientConfig::parse(&config).map(|config| config.url());
        let service = json!({"namespace": "d", "name": "hook", "path": "/validate", "port": 8443});
        let expected = "https://hook.d.svc:8443/validate";
        assert_eq!(url(json!({"service": service})).unwrap(), expected);
        let plain = json!({"service": {"namespace": "d", "name": "hook"}});
        assert_eq!(url(plain).unwrap(), "https://hook.d.svc:443");
        let outside = json!({"url": "https://example.com/a"});
        assert_eq!(url(outside).unwrap(), "https://example.com/a");
        assert_eq!(url(json!({})), Err(ConfigError::Nowhere));
        let bad = json!({"url": "https://a", "caBundle": "%"});
        assert_eq!(url(bad), Err(ConfigError::CaBundle));
    }
}
