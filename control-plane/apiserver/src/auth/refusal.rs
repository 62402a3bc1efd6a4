//! A refusal in upstream's words.

use super::{Attributes, User};
use crate::status::{Details, StatusError};

/// Upstream's sentence for a request that nothing allows.
pub(crate) fn forbidden(user: &User, attributes: &Attributes, reason: &str) -> StatusError {
    let Attributes {
        verb,
        group,
        resource,
        subresource,
        namespace,
        name,
        path,
        ..
    } = attributes;
    let why = if reason.is_empty() {
        String::new()
    } else {
        format!(": {reason}")
    };
    if resource.is_empty() {
        let message = format!(
            "forbidden: User \"{}\" cannot {verb} path \"{path}\"",
            user.name
        );
        let mut error = StatusError::new(403, "Forbidden", message + &why);
        error.details = Some(Box::default());
        return error;
    }
    let what = if subresource.is_empty() {
        resource.clone()
    } else {
        format!("{resource}/{subresource}")
    };
    let scope = if namespace.is_empty() {
        "at the cluster scope".to_owned()
    } else {
        format!("in the namespace \"{namespace}\"")
    };
    let plural = if group.is_empty() {
        resource.clone()
    } else {
        format!("{resource}.{group}")
    };
    let about = if name.is_empty() {
        plural
    } else {
        format!("{plural} \"{name}\"")
    };
    let message = format!(
        "{about} is forbidden: User \"{}\" cannot {verb} resource \"{what}\" in API group \
         \"{group}\" {scope}{why}",
        user.name
    );
    let mut error = StatusError::new(403, "Forbidden", message);
    error.details = Some(Box::new(Details {
        name: name.clone(),
        group: group.clone(),
        kind: resource.clone(),
        ..Details::default()
    }));
    error
}
