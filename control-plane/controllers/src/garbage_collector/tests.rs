use control_plane_client::{ObjectKey, Propagation, resources};
use proto_api::types::meta::v1::OwnerReference;

use super::plan::{Item, Owner, Verdict, judge};

fn item(owners: usize, finalizers: &[&str]) -> Item {
    Item {
        resource: resources::PODS,
        key: ObjectKey::new("default", "p"),
        revision: 1,
        uid: "p".to_owned(),
        owners: (0..owners)
            .map(|number| OwnerReference {
                uid: format!("o{number}"),
                ..OwnerReference::default()
            })
            .collect(),
        finalizers: finalizers.iter().map(|name| (*name).to_owned()).collect(),
        deleting: false,
    }
}

#[test]
fn an_object_goes_when_no_owner_stays_and_loses_only_references_otherwise() {
    use Owner::{Absent, Solid, Waiting};
    let unlink = |uids: &[&str]| Verdict::Unlink(uids.iter().map(|u| (*u).to_owned()).collect());
    let delete = Verdict::Delete;
    let cases = [
        (item(0, &[]), vec![], false, Verdict::Keep),
        (item(1, &[]), vec![Solid], false, Verdict::Keep),
        (
            item(1, &[]),
            vec![Absent],
            false,
            delete(Propagation::Background),
        ),
        (
            item(2, &[]),
            vec![Absent, Absent],
            false,
            delete(Propagation::Background),
        ),
        (item(2, &[]), vec![Solid, Absent], false, unlink(&["o1"])),
        (
            item(3, &[]),
            vec![Waiting, Solid, Absent],
            true,
            unlink(&["o0", "o2"]),
        ),
        (
            item(1, &[]),
            vec![Waiting],
            false,
            delete(Propagation::Background),
        ),
        (
            item(1, &[]),
            vec![Waiting],
            true,
            delete(Propagation::Foreground),
        ),
        (
            item(1, &["orphan"]),
            vec![Absent],
            true,
            delete(Propagation::Orphan),
        ),
        (
            item(1, &["foregroundDeletion"]),
            vec![Absent],
            true,
            delete(Propagation::Foreground),
        ),
    ];
    for (item, owners, has_dependents, expected) in cases {
        assert_eq!(
            judge(&item, &owners, has_dependents),
            expected,
            "{owners:?}"
        );
    }
}
