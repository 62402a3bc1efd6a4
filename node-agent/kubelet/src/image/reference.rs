//! Image names as containerd stores them: `busybox` is `docker.io/library/busybox:latest`. Pure.

const DEFAULT_REGISTRY: &str = "docker.io";
const DEFAULT_TAG: &str = "latest";

/// The full name of an image: registry, path, and tag or digest.
pub(crate) fn normalize(image: &str) -> String {
    let (name, suffix) = split(image);
    let has_registry = name.split_once('/').is_some_and(|(first, _)| {
        first.contains(['.', ':']) || first == "localhost" || first.chars().any(char::is_uppercase)
    });
    let name = match (has_registry, name.contains('/')) {
        (true, _) => name.to_owned(),
        (false, true) => format!("{DEFAULT_REGISTRY}/{name}"),
        (false, false) => format!("{DEFAULT_REGISTRY}/library/{name}"),
    };
    let suffix = if suffix.is_empty() {
        format!(":{DEFAULT_TAG}")
    } else {
        suffix.to_owned()
    };
    format!("{name}{suffix}")
}

/// Splits `name:tag@digest` before the first mark; the suffix keeps its marks.
fn split(image: &str) -> (&str, &str) {
    let end = image.find('@').unwrap_or(image.len());
    let path_start = image[..end].rfind('/').map_or(0, |slash| slash + 1);
    let tag = image[path_start..end]
        .find(':')
        .map_or(end, |colon| path_start + colon);
    image.split_at(tag)
}

/// The pull policy that applies when a container names none.
pub(crate) fn default_policy(image: &str) -> &'static str {
    let (_, suffix) = split(image);
    if suffix.is_empty() || suffix == ":latest" {
        "Always"
    } else {
        "IfNotPresent"
    }
}

/// The registry of images that come by import only. There is no server of the name: `local` is
/// reserved for names that are not in the global DNS (RFC 6762).
const IMPORT_ONLY_REGISTRY: &str = "skep.local/";

/// The policy that is acted on. An image of the import-only registry that is present is current by
/// definition, so asking always means asking when it is absent.
pub(crate) fn effective_policy<'a>(image: &str, policy: &'a str) -> &'a str {
    if policy == "Always" && image.starts_with(IMPORT_ONLY_REGISTRY) {
        "IfNotPresent"
    } else {
        policy
    }
}

/// What is wrong with an image name, in upstream's words; `None` when nothing is.
pub(crate) fn fault(image: &str) -> Option<&'static str> {
    let (name, suffix) = split(image);
    let word = |text: &str| {
        !text.is_empty()
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
    };
    let mut parts = name.split('/');
    let first = parts.next().unwrap_or_default();
    let host = first.split_once(':').map_or(first, |(host, _port)| host);
    let rest_fits = parts
        .clone()
        .all(|part| word(part) && !part.bytes().any(|b| b.is_ascii_uppercase()));
    let single = parts.next().is_none();
    if single && first.bytes().any(|b| b.is_ascii_uppercase()) {
        return Some("repository name must be lowercase");
    }
    let (tag, digest) = match suffix.split_once('@') {
        Some((tag, digest)) => (tag, Some(digest)),
        None => (suffix, None),
    };
    let tag_fits = tag.is_empty() || (tag.len() <= 129 && word(tag.trim_start_matches(':')));
    let digest_fits = digest.is_none_or(|digest| {
        digest
            .split_once(':')
            .is_some_and(|(kind, hex)| word(kind) && hex.len() >= 32)
    });
    (!(word(host) && rest_fits && tag_fits && digest_fits)).then_some("invalid reference format")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_get_registry_path_and_tag() {
        let cases = [
            ("busybox", "docker.io/library/busybox:latest"),
            ("busybox:1", "docker.io/library/busybox:1"),
            ("team/app", "docker.io/team/app:latest"),
            ("skep.local/hello", "skep.local/hello:latest"),
            ("localhost:5000/a/b:v1", "localhost:5000/a/b:v1"),
            ("registry.k8s.io/pause:3.9", "registry.k8s.io/pause:3.9"),
            ("localhost/a@sha256:00", "localhost/a@sha256:00"),
        ];
        for (short, full) in cases {
            assert_eq!(normalize(short), full);
        }
    }

    #[test]
    fn latest_or_no_tag_is_always_pulled() {
        assert_eq!(default_policy("a"), "Always");
        assert_eq!(default_policy("localhost:5000/a"), "Always");
        assert_eq!(default_policy("a:latest"), "Always");
        assert_eq!(effective_policy("skep.local/a", "Always"), "IfNotPresent");
        assert_eq!(effective_policy("skep.local/a", "Never"), "Never");
        assert_eq!(effective_policy("skep.localhost/a", "Always"), "Always");
        assert_eq!(default_policy("a:v1"), "IfNotPresent");
        assert_eq!(default_policy("a@sha256:00"), "IfNotPresent");
    }

    #[test]
    fn faulty_names_are_told_in_upstream_words() {
        assert_eq!(fault("busybox"), None);
        assert_eq!(fault("localhost:5000/a_b/c-d:v1.2"), None);
        assert_eq!(fault("Busybox"), Some("repository name must be lowercase"));
        assert_eq!(fault("a b"), Some("invalid reference format"));
        assert_eq!(fault("a/B:v"), Some("invalid reference format"));
        assert_eq!(fault(""), Some("invalid reference format"));
        assert_eq!(fault("a:v!"), Some("invalid reference format"));
    }
}
