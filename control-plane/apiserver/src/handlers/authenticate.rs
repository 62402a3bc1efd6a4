//! Who asks: the verified client certificate, else a bearer token, else nobody.

use hyper::HeaderMap;
use hyper::header::AUTHORIZATION;

use super::Api;
use crate::auth::{self, User};
use crate::http::Peer;
use crate::status::StatusError;

/// What is answered to anybody.
const PUBLIC: &[&str] = &["/healthz", "/livez", "/readyz", "/version"];

impl Api {
    /// The user of a request.
    ///
    /// # Errors
    /// 401 when a credential is given that does not hold, or none is where one must be.
    pub(super) fn authenticate(
        &self,
        peer: &Peer,
        headers: &HeaderMap,
        path: &str,
    ) -> Result<User, StatusError> {
        if let Some(certificate) = &peer.certificate {
            // Read once a connection.
            let user = peer
                .user
                .get_or_init(|| auth::certificate_user(certificate));
            return user.clone().ok_or_else(StatusError::unauthorized);
        }
        let bearer = headers
            .get(AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .map(|(_, token)| token.trim());
        let Some(token) = bearer else {
            return if is_public(path) {
                Ok(User::anonymous())
            } else {
                Err(StatusError::unauthorized())
            };
        };
        match self.token_user(token, &[]) {
            Ok((user, _)) => Ok(user),
            Err(why) => {
                tracing::debug!(why, "token refused");
                Err(StatusError::unauthorized())
            }
        }
    }

    /// The user that a bearer token speaks for, and which of `audiences` (empty: this server) it
    /// is for.
    ///
    /// # Errors
    /// Why the token does not hold; nothing of the token itself.
    pub(super) fn token_user(
        &self,
        token: &str,
        audiences: &[String],
    ) -> Result<(User, Vec<String>), String> {
        let now = (self.server.clock)();
        if let Some(user) = auth::bootstrap_token_user(&self.server, token, now) {
            // Such a token is for this server alone.
            let ours = auth::ISSUER.to_owned();
            return if audiences.is_empty() || audiences.contains(&ours) {
                Ok((user, vec![ours]))
            } else {
                Err("token audiences do not intersect with the requested ones".to_owned())
            };
        }
        let subject = self
            .tokens
            .verify(token, audiences)
            .map_err(|fault| fault.to_string())?;
        auth::check_bound(&self.server, &subject, now)?;
        Ok((subject.user, subject.audiences))
    }
}

fn is_public(path: &str) -> bool {
    PUBLIC.iter().any(|root| {
        path.strip_prefix(root)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_answered_on_health_and_version_alone() {
        for path in ["/healthz", "/livez", "/readyz/ping", "/version"] {
            assert!(is_public(path), "{path}");
        }
        for path in [
            "/",
            "/api",
            "/metrics",
            "/healthzz",
            "/versions",
            "/openid/v1/jwks",
        ] {
            assert!(!is_public(path), "{path}");
        }
    }
}
