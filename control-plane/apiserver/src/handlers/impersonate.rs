//! Impersonation headers (`kubectl --as`): one user acting as another, when it may.

use std::collections::BTreeMap;

use hyper::HeaderMap;

use super::Api;
use crate::auth::{AUTHENTICATED, Attributes, User};
use crate::status::StatusError;

const USER: &str = "impersonate-user";
const GROUP: &str = "impersonate-group";
const UID: &str = "impersonate-uid";
const EXTRA: &str = "impersonate-extra-";
const AUTHENTICATION: &str = "authentication.k8s.io";
const ANONYMOUS: &str = "system:anonymous";
const UNAUTHENTICATED: &str = "system:unauthenticated";

impl Api {
    /// The user that `user` acts as; `None` when it acts as itself.
    ///
    /// # Errors
    /// 403 when it may not; 400 when groups are named without a user.
    pub(super) fn impersonate(
        &self,
        user: &User,
        headers: &HeaderMap,
    ) -> Result<Option<User>, StatusError> {
        let Some(acted) = asked(headers)? else {
            return Ok(None);
        };
        let check = |group: &str, resource: &str, subresource: &str, place: (&str, &str)| {
            let attributes = Attributes {
                verb: "impersonate".to_owned(),
                group: group.to_owned(),
                version: "v1".to_owned(),
                resource: resource.to_owned(),
                subresource: subresource.to_owned(),
                namespace: place.0.to_owned(),
                name: place.1.to_owned(),
                ..Attributes::default()
            };
            self.check(user, &attributes)
        };
        match service_account(&acted.name) {
            Some(place) => check("", "serviceaccounts", "", place)?,
            None => check("", "users", "", ("", &acted.name))?,
        }
        for group in &acted.groups {
            check("", "groups", "", ("", group))?;
        }
        if !acted.uid.is_empty() {
            check(AUTHENTICATION, "uids", "", ("", &acted.uid))?;
        }
        for (key, values) in &acted.extra {
            for value in values {
                check(AUTHENTICATION, "userextras", key, ("", value))?;
            }
        }
        Ok(Some(complete(acted)))
    }
}

/// What the headers ask for, groups as given.
fn asked(headers: &HeaderMap) -> Result<Option<User>, StatusError> {
    let all = |name: &str| -> Vec<String> {
        headers
            .get_all(name)
            .iter()
            .filter_map(|value| value.to_str().ok().map(str::to_owned))
            .collect()
    };
    let name = all(USER).into_iter().next().unwrap_or_default();
    let groups = all(GROUP);
    let uid = all(UID).into_iter().next().unwrap_or_default();
    let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for key in headers.keys() {
        if let Some(name) = key.as_str().strip_prefix(EXTRA) {
            extra.insert(crate::http::decode(name), all(key.as_str()));
        }
    }
    if name.is_empty() {
        if groups.is_empty() && uid.is_empty() && extra.is_empty() {
            return Ok(None);
        }
        return Err(StatusError::bad_request(
            "requested impersonation of groups, uid or extra without impersonating a user",
        ));
    }
    Ok(Some(User {
        name,
        uid,
        groups,
        extra,
    }))
}

/// Namespace and name of the service account whose user name this is.
fn service_account(user: &str) -> Option<(&str, &str)> {
    let (namespace, name) = user
        .strip_prefix("system:serviceaccount:")?
        .split_once(':')?;
    (!namespace.is_empty() && !name.is_empty() && !name.contains(':')).then_some((namespace, name))
}

/// Adds the groups that the name or its kind brings along.
fn complete(mut user: User) -> User {
    if let Some((namespace, _)) = service_account(&user.name)
        && user.groups.is_empty()
    {
        user.groups = vec![
            "system:serviceaccounts".to_owned(),
            format!("system:serviceaccounts:{namespace}"),
        ];
    }
    let group = if user.name == ANONYMOUS {
        UNAUTHENTICATED
    } else {
        AUTHENTICATED
    };
    if !user.in_group(AUTHENTICATED) && !user.in_group(UNAUTHENTICATED) {
        user.groups.push(group.to_owned());
    }
    user
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(*name, value.parse().unwrap());
        }
        map
    }

    #[test]
    fn the_headers_name_a_user_with_its_groups() {
        let plain = headers(&[("accept", "*/*")]);
        assert_eq!(asked(&plain).unwrap(), None);
        let full = headers(&[
            ("impersonate-user", "bob"),
            ("impersonate-group", "dev"),
            ("impersonate-group", "ops"),
            ("impersonate-extra-acme.com%2fscope", "x"),
        ]);
        let user = complete(asked(&full).unwrap().unwrap());
        assert_eq!(user.groups, ["dev", "ops", AUTHENTICATED]);
        assert_eq!(user.extra["acme.com/scope"], ["x"]);
        let lost = headers(&[("impersonate-group", "system:masters")]);
        assert_eq!(asked(&lost).unwrap_err().code, 400);
    }

    #[test]
    fn a_service_account_brings_its_groups() {
        let account = headers(&[("impersonate-user", "system:serviceaccount:d:default")]);
        let user = complete(asked(&account).unwrap().unwrap());
        assert!(user.in_group("system:serviceaccounts:d"));
    }
}
