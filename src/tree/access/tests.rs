use std::borrow::Cow;
use std::net::Ipv6Addr;

use proptest::prelude::*;

use super::network::Address;
use super::*;

fn settings() -> AccessSettings {
    AccessSettings::default()
}

fn list(entries: &[(i32, &str, &str)]) -> AclList {
    AclList::List(entries.iter().map(|(perms, scheme, id)| Acl::new(*perms, scheme, id)).collect())
}

fn connected() -> Vec<Id> {
    vec![Id::new("ip", "127.0.0.1")]
}

/// Bob and Eve on one connection, who is also super.
fn many_ids() -> Vec<Id> {
    vec![Id::new("ip", "127.0.0.1"), Id::new("digest", "bob:h1"), Id::new("super", ""), Id::new("digest", "eve:h2")]
}

type Entry = (i32, Option<&'static str>, Option<&'static str>);

/// One line for a list: `31 world anyone; …`.
fn fixed(entries: &[Entry], ids: &[Id]) -> Result<String, ErrorCode> {
    let entries = entries.iter().map(|(perms, scheme, id)| AclEntry {
        perms: *perms,
        scheme: scheme.map(Into::into),
        id: id.map(Into::into),
    });
    let list = fix_up(&Some(entries.collect()), ids, &settings())?.to_vec();
    let lines = list.iter().map(|acl| format!("{} {} {}", acl.perms, acl.id.scheme, acl.id.id));
    Ok(lines.collect::<Vec<_>>().join("; "))
}

#[test]
fn c_131_an_entry_grants_its_own_bits_and_one_of_a_mask_is_enough() {
    let bob = [Id::new("digest", "bob:h1")];
    for granted in 0..32 {
        for asked in 1..32 {
            let expected = granted & asked != 0;
            assert_eq!(check(&list(&[(granted, "world", "anyone")]), asked, &connected(), &settings()), expected);
            assert_eq!(check(&list(&[(granted, "digest", "bob:h1")]), asked, &bob, &settings()), expected);
        }
    }
    assert!(check(&AclList::Open, perms::ADMIN, &[], &settings()));
    assert!(check(&list(&[]), perms::ADMIN, &[], &settings()), "an empty list allows everything");
}

#[test]
fn an_entry_matches_ids_of_its_own_scheme_only() {
    let entry = list(&[(31, "digest", "bob:h1")]);
    for (id, expected) in [
        (Id::new("digest", "bob:h1"), true),
        (Id::new("digest", "bob:h2"), false),
        (Id::new("digest", "bob"), false),
        (Id::new("ip", "bob:h1"), false),
        (Id::new("sasl", "bob:h1"), false),
    ] {
        assert_eq!(check(&entry, perms::READ, std::slice::from_ref(&id), &settings()), expected, "{id:?}");
    }
    for scheme in ["sasl", "x509", "ensemble", "auth", "nonsense", "world"] {
        assert!(!check(&list(&[(31, scheme, "bob")]), 1, &[Id::new(scheme, "bob")], &settings()), "{scheme}");
    }
}

#[test]
fn c_138_a_disabled_digest_provider_matches_and_accepts_nobody() {
    let disabled = AccessSettings { digest_enabled: false, ..settings() };
    let bob = [Id::new("digest", "bob:h1")];
    assert!(!check(&list(&[(31, "digest", "bob:h1")]), 1, &bob, &disabled));
    let entries = vec![AclEntry { perms: 31, scheme: Some("digest".into()), id: Some("bob:h1".into()) }];
    assert_eq!(fix_up(&Some(entries), &bob, &disabled), Err(ErrorCode::InvalidAcl));
}

#[test]
fn c_141_and_c_147_super_and_skip_acl_pass_every_check() {
    let nobody = list(&[(31, "digest", "x:y")]);
    assert!(!check(&nobody, 1, &connected(), &settings()));
    assert!(check(&nobody, 1, &many_ids(), &settings()));
    let skipping = AccessSettings { skip_acl: true, ..settings() };
    assert!(check(&nobody, 1, &connected(), &skipping));
    assert_eq!(fix_up(&Some(vec![]), &many_ids(), &skipping), Err(ErrorCode::InvalidAcl));
}

#[test]
fn c_132_lists_that_nobody_could_match_are_refused() {
    assert_eq!(fix_up(&None, &many_ids(), &settings()), Err(ErrorCode::InvalidAcl));
    for entries in [
        &[] as &[Entry],
        &[(31, Some("world"), Some("bob"))],
        &[(31, Some("foo"), Some("x"))],
        &[(31, Some("foo"), None)],
        &[(31, None, Some("x"))],
        &[(31, Some("super"), Some(""))],
        &[(31, Some("sasl"), Some("bob"))],
        &[(31, Some("world"), Some("anyone")), (1, None, Some("x"))],
        &[(31, None, Some("x")), (31, Some("world"), Some("anyone"))],
        &[(31, Some("ip"), Some("/"))],
    ] {
        assert_eq!(fixed(entries, &many_ids()), Err(ErrorCode::InvalidAcl), "{entries:?}");
    }
}

#[test]
fn java_stumbles_over_a_null_that_it_looks_at() {
    for entries in [
        &[(31, Some("world"), None)] as &[Entry],
        &[(31, Some("digest"), None)],
        &[(31, Some("ip"), None)],
        &[(31, Some("world"), Some("anyone")), (31, None, Some("x"))],
        &[(5, Some("auth"), None), (5, Some("auth"), None)],
        &[(5, Some("auth"), Some("x")), (5, Some("auth"), None)],
        &[(5, Some("foo"), Some("x")), (5, Some("foo"), None)],
    ] {
        assert_eq!(fixed(entries, &many_ids()), Err(ErrorCode::MarshallingError), "{entries:?}");
    }
    let ensemble = AccessSettings { ensemble_enabled: true, ..settings() };
    let entry = AclEntry { perms: 1, scheme: Some("ensemble".into()), id: None };
    assert_eq!(fix_up(&Some(vec![entry]), &[], &ensemble), Err(ErrorCode::InvalidAcl), "it does not look");
}

#[test]
fn c_133_and_c_134_auth_becomes_everybody_who_is_authenticated() {
    let two = Ok("5 digest bob:h1; 5 digest eve:h2".to_owned());
    for id in [None, Some(""), Some("ignored")] {
        assert_eq!(fixed(&[(5, Some("auth"), id)], &many_ids()), two);
        assert_eq!(fixed(&[(5, Some("auth"), id)], &connected()), Err(ErrorCode::InvalidAcl));
    }
    let twice = fixed(&[(5, Some("auth"), None), (5, Some("auth"), Some("x"))], &many_ids());
    assert_eq!(twice.unwrap(), "5 digest bob:h1; 5 digest eve:h2; 5 digest bob:h1; 5 digest eve:h2");
    let with_own = fixed(&[(31, Some("digest"), Some("bob:h1")), (31, Some("auth"), Some(""))], &many_ids());
    assert_eq!(with_own.unwrap(), "31 digest bob:h1; 31 digest bob:h1; 31 digest eve:h2");
}

#[test]
fn c_135_exact_duplicates_go_and_any_permissions_stay() {
    let anyone = |perms| (perms, Some("world"), Some("anyone"));
    assert_eq!(fixed(&[anyone(31), anyone(1), anyone(31)], &[]).unwrap(), "31 world anyone; 1 world anyone");
    assert_eq!(fixed(&[anyone(0), anyone(-1)], &[]).unwrap(), "0 world anyone; -1 world anyone");
    assert_eq!(fixed(&[anyone(31), anyone(31)], &[]).unwrap(), "31 world anyone");
    let entries = Some(vec![AclEntry { perms: 31, scheme: Some("world".into()), id: Some("anyone".into()) }]);
    assert_eq!(fix_up(&entries, &[], &settings()), Ok(AclList::Open));
}

#[test]
fn c_137_a_digest_id_has_two_parts() {
    for (id, expected) in [
        ("a:b", true),
        (":b", true),
        ("a:b:", true),
        ("a:b::", true),
        ("a:", false),
        ("a", false),
        ("a:b:c", false),
        ("", false),
        (":", false),
        ("::", false),
        ("::b", false),
    ] {
        assert_eq!(Provider::Digest.accepts(Some(id)), Ok(expected), "{id:?}");
    }
}

#[test]
fn c_142_and_c_143_hashes_are_hidden_from_who_may_only_read() {
    let acl = list(&[(17, "digest", "bob:h1"), (1, "world", "anyone"), (1, "digest", "odd"), (1, "ip", "::1")]);
    let masked = list(&[(17, "digest", "bob:x"), (1, "world", "anyone"), (1, "digest", "odd"), (1, "ip", "::1")]);
    assert_eq!(visible(&acl, &connected(), &settings()), Ok(masked));
    assert_eq!(visible(&acl, &[Id::new("digest", "bob:h1")], &settings()), Ok(acl.clone()));
    assert_eq!(visible(&acl, &many_ids(), &settings()), Ok(acl.clone()));
    let skipping = AccessSettings { skip_acl: true, ..settings() };
    assert_eq!(visible(&acl, &connected(), &skipping), Ok(acl));
    assert_eq!(visible(&list(&[(2, "world", "anyone")]), &[], &settings()), Err(ErrorCode::NoAuth));
    assert_eq!(visible(&AclList::Open, &[], &settings()), Ok(AclList::Open));
}

/// Whether an ip entry is valid, and whether it matches an address.
fn check_ip(acl_id: &str, address: &str, valid: bool, matches: bool) {
    assert_eq!(Provider::Ip.accepts(Some(acl_id)), Ok(valid), "{acl_id:?}");
    assert_eq!(Provider::Ip.matches(address, acl_id), matches, "{acl_id:?} {address:?}");
}

#[test]
fn c_145_ip_entries_of_ipv4() {
    for (acl_id, valid, matches) in [
        ("1.2.3.4", true, true),
        ("127.0.0.1", true, false),
        ("127.0.0.1/0", true, true),
        ("127.0.0.1/-0", true, true),
        ("1.2.3.4/32", true, true),
        ("1.2.3.4/24", true, true),
        ("1.2.255.4/16", true, true),
        ("1.2.3.5/31", true, true),
        ("1.2.3.6/31", true, false),
        ("+1.2.3.4/+8", true, true),
        ("01.002.3.4/08", true, true),
        ("127.0.0.1/33", false, false),
        ("127.0.0.1/-1", false, false),
        ("256.1.1.1", false, false),
        ("1.2.3", false, false),
        ("1.2.3.", false, false),
        ("1.2.3.4.5", false, false),
        ("1.2.3.4/", false, false),
        ("1.2.3.4/8/9", false, false),
        ("1.2.3.4//8", false, false),
        ("1.2.3.4/ 8", false, false),
        ("1.2.3.4 ", false, false),
        ("1.2.3.4/99999999999", false, false),
        ("", false, false),
        ("/", false, false),
        ("/8", false, false),
    ] {
        check_ip(acl_id, "1.2.3.4", valid, matches);
    }
    check_ip("0.0.0.0/0", "1.2.3.4%eth0", true, false);
}

#[test]
fn c_146_ip_entries_of_ipv6() {
    let loopback = "0:0:0:0:0:0:0:1";
    for (acl_id, valid, matches) in [
        ("::1", true, true),
        (loopback, true, true),
        ("0000:0::0:01", true, true),
        ("::1/128", true, true),
        ("::/127", true, true),
        ("::2/127", true, false),
        ("::/0", true, true),
        ("fe80::/0", true, true),
        ("fe80::/1", true, false),
        ("::", true, false),
        ("1:2:3:4:5:6:7::", true, false),
        ("::2:3:4:5:6:7:8", true, false),
        ("::1/129", false, false),
        ("::1/-1", false, false),
        ("1:2:3:4:5:6:7:8::", false, false),
        ("1::2::3", false, false),
        (":::", false, false),
        (":1", false, false),
        ("1:2:3:4:5:6:7", false, false),
        ("1:2:3:4:5:6:7:8:9", false, false),
        ("::12345", false, false),
        ("::g", false, false),
        ("::+1", false, false),
        ("::1.2.3.4", false, false),
        ("::1%eth0", false, false),
    ] {
        check_ip(acl_id, loopback, valid, matches);
    }
    check_ip("0.0.0.0/0", loopback, true, false);
    check_ip("::/0", "127.0.0.1", true, false);
    check_ip("2001:db8::/32", "2001:db8:1:2:3:4:5:6", true, true);
    check_ip("fe80::/10", "fe80:0:0:0:0:0:0:1%2", true, false);
}

#[test]
fn expansion_never_outgrows_a_frame() {
    let ids: Vec<Id> = (0..1000).map(|n| Id::new("digest", &format!("user{n}:hash"))).collect();
    let entries = (0..70_000).map(|perms| AclEntry { perms, scheme: Some("auth".into()), id: None });
    assert_eq!(fix_up(&Some(entries.collect()), &ids, &settings()), Err(ErrorCode::InvalidAcl));
}

/// `removeDuplicates` as Java has it: each entry is compared with all that were kept.
fn naive(entries: &[AclEntry<'_>]) -> Result<Vec<AclEntry<'static>>, ErrorCode> {
    let owned = |text: &Option<Cow<'_, str>>| text.as_deref().map(|text| Cow::Owned(text.to_owned()));
    let mut kept: Vec<AclEntry<'static>> = Vec::new();
    'next: for entry in entries {
        for other in &kept {
            if entry.perms != other.perms {
                continue;
            }
            let scheme = entry.scheme.as_ref().ok_or(ErrorCode::MarshallingError)?;
            if Some(scheme) != other.scheme.as_ref() {
                continue;
            }
            let id = entry.id.as_ref().ok_or(ErrorCode::MarshallingError)?;
            if Some(id) == other.id.as_ref() {
                continue 'next;
            }
        }
        kept.push(AclEntry { perms: entry.perms, scheme: owned(&entry.scheme), id: owned(&entry.id) });
    }
    Ok(kept)
}

proptest! {
    #[test]
    fn duplicates_are_those_that_java_finds(list in prop::collection::vec((0..3, 0..4_usize, 0..4_usize), 0..12)) {
        let texts = [None, Some("a"), Some("b"), Some("c")];
        let text = |at: usize| texts[at].map(Cow::Borrowed);
        let entries: Vec<AclEntry> =
            list.iter().map(|(perms, s, i)| AclEntry { perms: *perms, scheme: text(*s), id: text(*i) }).collect();
        let kept = without_duplicates(&entries).map(|kept| kept.into_iter().cloned().collect::<Vec<_>>());
        prop_assert_eq!(kept, naive(&entries));
    }

    #[test]
    fn any_ipv6_address_is_read_in_both_of_its_forms(bits: u128, mask in 0..=128_u32) {
        let address = Ipv6Addr::from(bits & u128::MAX.checked_shl(mask).unwrap_or(0));
        let long = address.segments().map(|group| format!("{group:x}")).join(":");
        prop_assert_eq!(Address::parse(&long), Some(Address::V6(address.into())));
        if !address.to_string().contains('.') {
            prop_assert_eq!(Address::parse(&address.to_string()), Some(Address::V6(address.into())));
        }
    }

    #[test]
    fn no_text_of_an_ip_entry_does_harm(text in "[0-9a-f:./+-]{0,24}|.{0,8}") {
        let accepted = Provider::Ip.accepts(Some(&text)).unwrap();
        prop_assert!(accepted || !Provider::Ip.matches("1.2.3.4", &text));
    }
}
