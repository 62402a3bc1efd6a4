//! The authority's files, and whom it signs for.

use std::os::unix::fs::PermissionsExt as _;

use super::*;

fn scratch() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn node_request(name: &str, group: &str) -> Vec<u8> {
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let mut params = CertificateParams::default();
    let mut subject = DistinguishedName::new();
    subject.push(DnType::OrganizationName, group);
    subject.push(DnType::CommonName, name);
    params.distinguished_name = subject;
    params.serialize_request(&key).unwrap().der().to_vec()
}

#[test]
fn the_authority_is_made_once_and_its_keys_are_private() {
    let dir = scratch();
    let path = dir.path().join("pki");
    let first = Pki::open(&path).unwrap().ca_pem().to_owned();
    let second = Pki::open(&path).unwrap().ca_pem().to_owned();
    assert_eq!(first, second);
    for (file, mode) in [
        ("ca.key", 0o600),
        ("sa.key", 0o600),
        ("join.token", 0o600),
        ("seal.keys", 0o600),
        ("ca.crt", 0o644),
    ] {
        let found = std::fs::metadata(path.join(file))
            .unwrap()
            .permissions()
            .mode()
            & 0o777;
        assert_eq!(found, mode, "{file}");
    }
}

#[test]
fn only_the_join_token_joins_and_it_survives_a_restart() {
    let dir = scratch();
    let token = Pki::open(dir.path()).unwrap().join_token().to_owned();
    let pki = Pki::open(dir.path()).unwrap();
    assert!(token.len() >= 32);
    assert!(pki.is_join_token(&token));
    assert!(!pki.is_join_token(""));
    assert!(!pki.is_join_token(&token[1..]));
}

#[test]
fn a_node_gets_its_own_name_and_no_other() {
    let dir = scratch();
    let pki = Pki::open(dir.path()).unwrap();
    let good = node_request("system:node:n1", "system:nodes");
    let pem = pki.sign_node_request(&good, "n1").unwrap();
    let der = x509_parser::pem::parse_x509_pem(pem.as_bytes()).unwrap().1;
    let certificate = der.parse_x509().unwrap();
    assert_eq!(
        certificate.subject().to_string(),
        "O=system:nodes, CN=system:node:n1"
    );
    assert!(!certificate.is_ca());
    for (name, group) in [
        ("system:node:n2", "system:nodes"),
        ("system:node:n1", "system:masters"),
        ("admin", "system:nodes"),
    ] {
        let request = node_request(name, group);
        let refused = pki.sign_node_request(&request, "n1").unwrap_err();
        assert!(
            matches!(refused, PkiError::Refused { .. }),
            "{name} {group}"
        );
    }
    pki.sign_node_request(b"garbage", "n1").unwrap_err();
    pki.sign_node_request(&good, "../n1").unwrap_err();
}

#[test]
fn a_kubeconfig_holds_what_kubectl_needs() {
    let dir = scratch();
    let pki = Pki::open(dir.path()).unwrap();
    let identity = pki.client_identity("admin", &["system:masters"]).unwrap();
    let path = dir.path().join("kubeconfig");
    let config = Kubeconfig {
        cluster: "skep",
        server: "https://127.0.0.1:6443",
        ca_pem: pki.ca_pem(),
        identity: &identity,
    };
    write_kubeconfig(&path, &config).unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    for part in [
        "current-context: skep",
        "server: https://127.0.0.1:6443",
        "client-key-data: ",
    ] {
        assert!(text.contains(part), "{part}");
    }
    let mode = std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
}

#[test]
fn tokens_outlive_the_rotation_of_their_key() {
    let dir = scratch();
    let issue = |pki: &Pki| {
        let request = crate::auth::IssueRequest {
            namespace: "d".to_owned(),
            account: "default".to_owned(),
            account_uid: "u".to_owned(),
            audiences: Vec::new(),
            expiration_seconds: 3600,
            pod: None,
            node: None,
            secret: None,
        };
        let now = jiff::Timestamp::now().as_second();
        pki.tokens().issue(&request, now).unwrap().token
    };
    let first = issue(&Pki::open(dir.path()).unwrap());
    rotate_token_key(dir.path()).unwrap();
    let second = issue(&Pki::open(dir.path()).unwrap());
    rotate_token_key(dir.path()).unwrap();
    let pki = Pki::open(dir.path()).unwrap();
    for token in [&first, &second, &issue(&pki)] {
        pki.tokens().verify(token, &[]).unwrap();
    }
    assert_eq!(pki.tokens().jwks()["keys"].as_array().unwrap().len(), 3);
    for _ in 0..OLDER_KEYS_MAX {
        rotate_token_key(dir.path()).unwrap();
    }
    let pki = Pki::open(dir.path()).unwrap();
    pki.tokens().verify(&first, &[]).unwrap_err();
}
