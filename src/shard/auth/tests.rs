use super::*;

const LOCAL: &str = "127.0.0.1:4711";

fn ids_of(peer: &str) -> Arc<AuthIds> {
    Arc::new(AuthIds::of_peer(peer.parse().unwrap()))
}

fn send(
    settings: &AuthSettings,
    access: &AccessSettings,
    scheme: &str,
    auth: &[u8],
    ids: &mut Arc<AuthIds>,
) -> Outcome {
    let packet = AuthPacket { scheme: Some(scheme.into()), auth: Some(auth) };
    settings.authenticate(access, &packet, ids)
}

/// What becomes of a new connection after one packet: the outcome and its ids.
fn check(settings: &AuthSettings, scheme: &str, auth: &[u8], outcome: Outcome, expected: &[(&str, &str)]) {
    let mut ids = ids_of(LOCAL);
    let access = AccessSettings { ensemble_enabled: true, ..AccessSettings::default() };
    assert_eq!(send(settings, &access, scheme, auth, &mut ids), outcome, "{scheme}");
    let added: Vec<(&str, &str)> = ids.ids().iter().skip(1).map(|id| (&*id.scheme, &*id.id)).collect();
    assert_eq!(added, expected, "{scheme}");
}

#[test]
fn a_connection_starts_as_its_address_in_javas_words() {
    for (peer, expected) in [
        (LOCAL, "127.0.0.1"),
        ("[::1]:1", "0:0:0:0:0:0:0:1"),
        ("[2001:db8::a:0]:1", "2001:db8:0:0:0:0:a:0"),
        ("[::ffff:10.0.0.7]:1", "10.0.0.7"),
        ("[::10.0.0.7]:1", "0:0:0:0:0:0:a00:7"),
        ("[fe80::1%3]:1", "fe80:0:0:0:0:0:0:1%3"),
    ] {
        assert_eq!(ids_of(peer).ids(), [Id::new("ip", expected)]);
    }
}

#[test]
fn c_136_a_digest_id_hashes_everything_and_shows_the_user() {
    let settings = AuthSettings::default();
    for (auth, expected) in [
        ("super:test", "super:D/InIHSb7yEEbrWz8b9l71RjZJU="),
        ("bob:secret", "bob:fyVmFCwVbTJYrznoSu1koqYEYF0="),
        ("bob", "bob:SBgazSKz7a68ikR4aKfffOYpkgo="),
        ("", ":2jmj7l5rSw0yVb/vlWAYkK/YBwk="),
        (":x", ":57b19mLA2vMhI/edHul/TytWqWE="),
        ("a:b:c", "a:cLzgnoJ6mP5qz3w+mwvPE2vDgu0="),
        ("ü:😀", "ü:DDNRb2XV0sUeEHjO9X49zSgUJnM="),
    ] {
        check(&settings, "digest", auth.as_bytes(), Outcome::Accepted, &[("digest", expected)]);
    }
}

#[test]
fn c_138_other_hashes_are_the_jdks() {
    for (name, expected) in [
        ("sha", "fyVmFCwVbTJYrznoSu1koqYEYF0="),
        ("SHA-224", "5/BxB7nGacUX3CA0wafV2XS7GbQ54deqor/oXg=="),
        ("SHA-256", "huAluaVu3uER4LIpielGv9Qqk5x3YVDr6I2R/mXf2wE="),
        ("sha-384", "sK3FknlHR28F5XDVFyv279SPFI+mcaciCe23ZtSFn7CeJGi9j80tCAbRDiVejZ6K"),
        ("SHA-512", "MON49O1q1UU4gzHRH8XFfdstQyTRtQRoDT+8dvk+qrZdXJegJxeoYDJfch4LeWUjXjSWIiqnKXpFYZi7tC1AZw=="),
        ("SHA-512/256", "Og/IurIw/GdzbFYQ/Z98uLvNTACkWBakgqXV2r5V1Zw="),
        ("SHA3-224", "RWLJ9PCRZyjMaWsFPHvSpbY168zfDgTW8akZzQ=="),
        ("SHA3-256", "ukO6WgYOvbjGYGRnCevsZ2T9tQ3ynirMDLl7Q45X6Rc="),
        ("SHA3-384", "lez47SW3dbfkQSe7psLgnTgaeQNC8V3Q/V4KUvBZqSyP5PYFdLx1bSgbREtiqWkT"),
        ("SHA3-512", "WISyoZv7veYA99eCjRXIryiJS6naNSmdMrE6AO9lJ90NPVr/4b/DbXgizNO6W+B2kcZO9YDhjZzAnIXD1CvxdA=="),
    ] {
        let algorithm = DigestAlgorithm::parse(name).unwrap();
        assert_eq!(digest_id(algorithm, "bob:secret"), format!("bob:{expected}"), "{name}");
    }
    assert_eq!(DigestAlgorithm::parse("MD5"), None);
    let disabled = AccessSettings { digest_enabled: false, ..AccessSettings::default() };
    let mut ids = ids_of(LOCAL);
    assert_eq!(send(&AuthSettings::default(), &disabled, "digest", b"a:b", &mut ids), Outcome::Failed);
    assert_eq!(ids, ids_of(LOCAL));
}

#[test]
fn c_139_ids_accumulate_and_requests_on_their_way_keep_theirs() {
    let (settings, access) = (AuthSettings::default(), AccessSettings::default());
    let mut ids = ids_of(LOCAL);
    let before = Arc::clone(&ids);
    for auth in ["bob:1", "eve:2", "bob:1"] {
        assert_eq!(send(&settings, &access, "digest", auth.as_bytes(), &mut ids), Outcome::Accepted);
    }
    let users: Vec<&str> = ids.ids().iter().map(user_name).collect();
    assert_eq!(users, ["127.0.0.1", "bob", "eve"]);
    assert_eq!(before.ids().len(), 1);
}

#[test]
fn c_140_schemes_without_a_provider_fail() {
    let settings = AuthSettings::default();
    for scheme in ["FOO", "", "world", "auth", "super", "sasl", "x509", "DIGEST"] {
        check(&settings, scheme, b"a:b", Outcome::Failed, &[]);
    }
    check(&settings, "ip", b"10.0.0.1", Outcome::Accepted, &[]);
    let access = AccessSettings::default();
    let mut ids = ids_of(LOCAL);
    for scheme in [None, Some("digest".into())] {
        let packet = AuthPacket { scheme, auth: None };
        assert_eq!(settings.authenticate(&access, &packet, &mut ids), Outcome::Failed);
    }
}

#[test]
fn c_141_the_super_user_is_known_by_the_digest() {
    let digest = "super:D/InIHSb7yEEbrWz8b9l71RjZJU=";
    let settings = AuthSettings { super_digest: Some(digest.to_owned()), ..AuthSettings::default() };
    check(&settings, "digest", b"super:test", Outcome::Accepted, &[("super", ""), ("digest", digest)]);
    let wrong = digest_id(settings.digest_algorithm, "super:tset");
    check(&settings, "digest", b"super:tset", Outcome::Accepted, &[("digest", &wrong)]);
}

#[test]
fn c_148_who_am_i_shows_users_and_no_hashes() {
    for (scheme, id, expected) in [
        ("ip", "0:0:0:0:0:0:0:1", "0:0:0:0:0:0:0:1"),
        ("digest", "bob:fyVm=", "bob"),
        ("digest", ":fyVm=", ""),
        ("super", "", ""),
        ("x509", "CN=bob", ""),
    ] {
        assert_eq!(user_name(&Id::new(scheme, id)), expected);
    }
}

#[test]
fn c_149_enforced_authentication_admits_by_scheme() {
    let settings = AuthSettings { enforced_schemes: Some(vec!["digest".to_owned()]), ..AuthSettings::default() };
    let mut ids = ids_of(LOCAL);
    assert!(AuthSettings::default().is_admitted(&ids));
    assert!(!settings.is_admitted(&ids));
    assert_eq!(send(&settings, &AccessSettings::default(), "digest", b"bob:1", &mut ids), Outcome::Accepted);
    assert!(settings.is_admitted(&ids));
}

#[test]
fn c_150_what_nobody_could_satisfy_is_refused_at_the_start() {
    let check = |schemes: &[&str], expected| {
        let enforced_schemes = Some(schemes.iter().map(|scheme| scheme.to_string()).collect());
        let settings = AuthSettings { enforced_schemes, ..AuthSettings::default() };
        assert_eq!(settings.check_enforced(&AccessSettings::default()), expected, "{schemes:?}");
    };
    check(&["digest", "ip"], Ok(()));
    check(&[], Err(EnforcedAuthError::NoSchemes));
    check(&["digest", "sasl"], Err(EnforcedAuthError::NoProvider("sasl".to_owned())));
    assert_eq!(AuthSettings::default().check_enforced(&AccessSettings::default()), Ok(()));
}

#[test]
fn c_152_a_wrong_ensemble_name_closes_without_an_answer() {
    let named = |names: &[&str]| AuthSettings {
        ensemble_names: Some(names.iter().map(|name| name.to_string()).collect()),
        ..AuthSettings::default()
    };
    check(&named(&["blue", "green"]), "ensemble", b"green", Outcome::Accepted, &[]);
    check(&named(&["blue", "green"]), "ensemble", b"", Outcome::Accepted, &[]);
    check(&named(&["blue", "green"]), "ensemble", b"red", Outcome::WrongEnsemble, &[]);
    check(&AuthSettings::default(), "ensemble", b"red", Outcome::Accepted, &[]);
    let mut ids = ids_of(LOCAL);
    let access = AccessSettings::default();
    assert_eq!(send(&named(&["blue"]), &access, "ensemble", b"blue", &mut ids), Outcome::Failed);
}

#[test]
fn ids_of_one_connection_are_bounded() {
    let (settings, access) = (AuthSettings::default(), AccessSettings::default());
    let mut ids = ids_of(LOCAL);
    let outcomes: Vec<Outcome> =
        (0..2000).map(|n| send(&settings, &access, "digest", format!("user{n}:x").as_bytes(), &mut ids)).collect();
    assert_eq!(outcomes[100], Outcome::Accepted);
    assert_eq!(outcomes[1999], Outcome::Failed);
    let long = [b'x'; limits::AUTH_BYTES_PER_CONNECTION_MAX];
    assert_eq!(send(&settings, &access, "digest", &long, &mut ids_of(LOCAL)), Outcome::Failed);
}
