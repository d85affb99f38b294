//! Where we differ from Debian's Java server (3.8.0, with the fix of CVE-2024-23944) on purpose, each with its reason. Whatever is not here is a bug.

use super::decode::Item;
use super::plan::Request;
use crate::support::link::op;

/// A deliberate difference that the random sequences meet.
pub struct Known {
    pub name: &'static str,
    pub reason: &'static str,
    /// Whether Java's answer and ours differ in this way.
    matches: fn(&Pair) -> bool,
}

/// Two answers to one request; `request` is `None` for events and connections.
struct Pair<'a> {
    request: Option<&'a Request>,
    java: &'a Item,
    ours: &'a Item,
}

impl Pair<'_> {
    fn is_op(&self, op: i32) -> bool {
        self.request.is_some_and(|request| request.op == op)
    }

    /// Whether the request's description has this in it.
    fn says(&self, text: &str) -> bool {
        self.request.is_some_and(|request| request.text.contains(text))
    }
}

/// Explains a difference, or not.
pub fn explain(request: Option<&Request>, java: &Item, ours: &Item) -> Option<&'static Known> {
    let pair = Pair { request, java, ours };
    KNOWN.iter().find(|known| (known.matches)(&pair))
}

/// Those that would change what follows are not generated; `differential.rs` tests each of them by itself.
pub const KNOWN: &[Known] = &[
    Known {
        name: "event zxid",
        reason: "since 3.9.0 an event carries the zxid of the transaction that fired it; before, -1",
        matches: |Pair { java, ours, .. }| {
            java.is_event() && ours.is_event() && java.get("zxid") == "-1" && same_but(java, ours, &["zxid"])
        },
    },
    Known {
        name: "exists needs READ",
        reason: "since 3.8.4 exists of a znode that the client may not read is refused",
        matches: |pair| pair.is_op(op::EXISTS) && pair.java.get("err") == "0" && is_refused_like(pair, "-102"),
    },
    Known {
        name: "create2 in a multi",
        reason: "since 3.8.2 it is answered as create2, with the Stat; before, as create",
        matches: |pair| pair.is_op(op::MULTI) && without_create2(pair.java) == without_create2(pair.ours),
    },
    Known {
        name: "null ACL in a multi",
        reason: "since 3.8.2 a null ACL or impossible flags in a create make the whole multi unreadable; before, they \
                 were the result of that create, if none failed in front of it",
        matches: |pair| {
            pair.is_op(op::MULTI) && pair.says("acl null") && pair.java.get("err") == "0" && is_refused_like(pair, "-5")
        },
    },
    Known {
        name: "unreadable multiRead",
        reason: "Java sends the results in front of the unreadable part behind an error that has no body; nobody reads \
                 them",
        matches: |pair| {
            pair.is_op(op::MULTI_READ) && pair.java.get("err") == "-5" && same_but(pair.java, pair.ours, &["trailing"])
        },
    },
    Known {
        name: "getAllChildrenNumber of the empty path",
        reason: "for Java the root lies below it; for us it is the root, as for every other read",
        matches: |pair| {
            let total = |item: &Item| item.get("total").parse::<i64>().unwrap_or(0);
            pair.is_op(op::GET_ALL_CHILDREN_NUMBER)
                && pair.says("\"\"")
                && total(pair.java) == total(pair.ours) + 1
                && same_but(pair.java, pair.ours, &["total"])
        },
    },
    Known {
        name: "checkWatches of somebody else's watch",
        reason: "before 3.9.0 checkWatches found any client's watch on the path",
        matches: |pair| pair.is_op(op::CHECK_WATCHES) && pair.java.get("err") == "0" && is_refused_like(pair, "-121"),
    },
];

/// Equal, apart from these fields.
fn same_but(java: &Item, ours: &Item, except: &[&str]) -> bool {
    let rest =
        |item: &Item| -> Vec<_> { item.fields.iter().filter(|f| !except.contains(&&*f.name)).cloned().collect() };
    java.kind == ours.kind && rest(java) == rest(ours)
}

/// Ours is the same reply, with an error and no body.
fn is_refused_like(Pair { java, ours, .. }: &Pair, err: &str) -> bool {
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
