//! Where we differ from Debian's Java server (3.8.0, with the fix of CVE-2024-23944) on purpose, each with its reason. Whatever is not here is a bug.

use super::decode::Item;
use crate::support::link::op;

/// A deliberate difference that the random sequences meet.
pub struct Known {
    pub name: &'static str,
    pub reason: &'static str,
    /// Whether Java's answer and ours to `op` differ in this way.
    matches: fn(op: i32, java: &Item, ours: &Item) -> bool,
}

/// Explains a difference, or not.
pub fn explain(op: i32, java: &Item, ours: &Item) -> Option<&'static Known> {
    KNOWN.iter().find(|known| (known.matches)(op, java, ours))
}

/// Those that would change what follows are not generated; `differential.rs` tests each of them by itself.
pub const KNOWN: &[Known] = &[
    Known {
        name: "event zxid",
        reason: "since 3.9.0 an event carries the zxid of the transaction that fired it; before, -1",
        matches: |_, java, ours| {
            java.is_event() && ours.is_event() && java.get("zxid") == "-1" && same_but(java, ours, &["zxid"])
        },
    },
    Known {
        name: "exists needs READ",
        reason: "since 3.8.4 exists of a znode that the client may not read is refused",
        matches: |op, java, ours| op == op::EXISTS && java.get("err") == "0" && is_refused_like(java, ours, "-102"),
    },
    Known {
        name: "create2 in a multi",
        reason: "since 3.8.2 it is answered as create2, with the Stat; before, as create",
        matches: |op, java, ours| op == op::MULTI && without_create2(java) == without_create2(ours),
    },
    Known {
        name: "unreadable multi",
        reason: "since 3.8.2 impossible flags or a null ACL in a create fail the whole multi as unreadable; before, \
                 they were the result of that create",
        matches: |op, java, ours| {
            let refused_inside =
                java.fields.iter().any(|f| f.name.ends_with(".err") && matches!(&*f.value, "-8" | "-114"));
            op == op::MULTI && java.get("err") == "0" && refused_inside && is_refused_like(java, ours, "-5")
        },
    },
    Known {
        name: "checkWatches of somebody else's watch",
        reason: "before 3.9.0 checkWatches found any client's watch on the path",
        matches: |op, java, ours| {
            op == op::CHECK_WATCHES && java.get("err") == "0" && is_refused_like(java, ours, "-121")
        },
    },
];

/// Equal, apart from these fields.
fn same_but(java: &Item, ours: &Item, except: &[&str]) -> bool {
    let rest =
        |item: &Item| -> Vec<_> { item.fields.iter().filter(|f| !except.contains(&&*f.name)).cloned().collect() };
    java.kind == ours.kind && rest(java) == rest(ours)
}

/// Ours is the same reply, with an error and no body.
fn is_refused_like(java: &Item, ours: &Item, err: &str) -> bool {
    ours.fields.len() == 3
        && ours.get("err") == err
        && ours.get("xid") == java.get("xid")
        && ours.get("zxid") == java.get("zxid")
}

/// Fields of a multi's reply in the form that a create has: the results of creates keep their path alone.
fn without_create2(item: &Item) -> Vec<(String, String)> {
    let is_create2 = |prefix: &str| {
        let kind = item.get(&format!("{prefix}.type"));
        matches!(kind, "1" | "15") && !item.get(&format!("{prefix}.path")).is_empty()
    };
    let mut fields = Vec::new();
    for field in &item.fields {
        match field.name.split_once('.') {
            Some((prefix, name)) if is_create2(prefix) => match name {
                "type" => fields.push((field.name.clone(), "create".to_owned())),
                "path" | "err" => fields.push((field.name.clone(), field.value.clone())),
                _ => {}
            },
            _ => fields.push((field.name.clone(), field.value.clone())),
        }
    }
    fields
}
