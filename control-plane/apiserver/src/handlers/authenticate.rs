//! Who asks: the verified client certificate, else a bearer token, else nobody.

use hyper::HeaderMap;
use hyper::header::AUTHORIZATION;
use rustls_pki_types::CertificateDer;
use x509_parser::prelude::FromDer as _;

use super::Api;
use crate::auth::{TokenSubject, User};
use crate::http::Peer;
use crate::object::ObjKey;
use crate::status::StatusError;

impl Api {
    /// The user of a request.
    ///
    /// # Errors
    /// 401 when a credential is given that does not hold.
    pub(super) fn authenticate(
        &self,
        peer: &Peer,
        headers: &HeaderMap,
    ) -> Result<User, StatusError> {
        let bearer = headers
            .get(AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .map(|(_, token)| token.trim());
        if let Some(certificate) = &peer.certificate {
            return certificate_user(certificate).ok_or_else(StatusError::unauthorized);
        }
        let Some(token) = bearer else {
            return Ok(User::anonymous());
        };
        let subject = self.tokens.verify(token).map_err(|fault| {
            tracing::debug!(%fault, "token refused");
            StatusError::unauthorized()
        })?;
        if !self.still_exists(&subject) {
            return Err(StatusError::unauthorized());
        }
        Ok(subject.user)
    }

    /// A token ends with its account and its pod.
    fn still_exists(&self, subject: &TokenSubject) -> bool {
        let alive = |plural: &str, (name, uid): &(String, String)| {
            self.server
                .registry
                .by_plural("", "v1", plural)
                .is_some_and(|kind| {
                    let found = self
                        .server
                        .cache
                        .of(&kind)
                        .get(&ObjKey::new(&subject.namespace, name));
                    found.is_some_and(|obj| *obj.meta.uid == **uid)
                })
        };
        alive("serviceaccounts", &subject.account)
            && subject.pod.as_ref().is_none_or(|pod| alive("pods", pod))
    }
}

/// Common name and organisations of a certificate that rustls has verified.
fn certificate_user(certificate: &CertificateDer<'_>) -> Option<User> {
    let (_, certificate) = x509_parser::certificate::X509Certificate::from_der(certificate).ok()?;
    let subject = certificate.subject();
    let name = subject.iter_common_name().next()?.as_str().ok()?.to_owned();
    let groups: Vec<String> = subject
        .iter_organization()
        .filter_map(|group| group.as_str().ok().map(str::to_owned))
        .collect();
    (!name.is_empty()).then(|| User::known(&name, groups))
}
