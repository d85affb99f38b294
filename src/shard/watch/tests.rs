use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

const A: ConnectionId = ConnectionId(1);
const B: ConnectionId = ConnectionId(2);
const C: ConnectionId = ConnectionId(3);

fn table() -> WatchTable {
    WatchTable::new([1, 2, 3, 4])
}

fn add(table: &mut WatchTable, kind: WatchKind, path: &str, connection: ConnectionId) {
    table.add(kind, path, connection).unwrap();
}

/// A change, and what it tells: `Created /a: 1 2` for each step.
fn check(table: &mut WatchTable, change: ChangeKind, path: &str, expected: &[&str]) {
    let mut fired = Fired::default();
    table.fire(change, path, &mut fired);
    let steps: Vec<String> = fired
        .steps()
        .map(|step| {
            let connections: Vec<String> = step.connections.iter().map(|c| c.0.to_string()).collect();
            format!("{:?} {}: {}", step.event, step.path, connections.join(" "))
        })
        .collect();
    assert_eq!(steps, expected, "{change:?} {path}");
}

#[test]
fn c_102_a_data_watch_tells_once() {
    let mut t = table();
    add(&mut t, WatchKind::Data, "/a", A);
    check(&mut t, ChangeKind::DataChanged, "/a", &["NodeDataChanged /a: 1"]);
    check(&mut t, ChangeKind::DataChanged, "/a", &[]);
    check(&mut t, ChangeKind::Deleted, "/a", &[]);
    add(&mut t, WatchKind::Data, "/a", A);
    check(&mut t, ChangeKind::Deleted, "/a", &["NodeDeleted /a: 1"]);
}

#[test]
fn c_103_an_exists_watch_waits_for_the_creation() {
    let mut t = table();
    add(&mut t, WatchKind::Data, "/a", A);
    check(&mut t, ChangeKind::Created, "/a", &["NodeCreated /a: 1"]);
    check(&mut t, ChangeKind::DataChanged, "/a", &[]);
}

#[test]
fn c_104_a_child_watch_tells_of_children_and_of_the_end() {
    let mut t = table();
    for change in [ChangeKind::Created, ChangeKind::Deleted] {
        add(&mut t, WatchKind::Child, "/a", A);
        check(&mut t, ChangeKind::DataChanged, "/a/b", &[]);
        check(&mut t, ChangeKind::DataChanged, "/a", &[]);
        check(&mut t, change, "/a/b", &["NodeChildrenChanged /a: 1"]);
    }
    add(&mut t, WatchKind::Child, "/a", A);
    check(&mut t, ChangeKind::Deleted, "/a", &["NodeDeleted /a: 1"]);
    add(&mut t, WatchKind::Child, "/", A);
    check(&mut t, ChangeKind::Created, "/a", &["NodeChildrenChanged /: 1"]);
}

#[test]
fn c_107_data_and_child_watch_share_one_deletion() {
    let mut t = table();
    add(&mut t, WatchKind::Data, "/a", A);
    add(&mut t, WatchKind::Child, "/a", A);
    add(&mut t, WatchKind::Child, "/a", B);
    add(&mut t, WatchKind::Data, "/a", C);
    check(&mut t, ChangeKind::Deleted, "/a", &["NodeDeleted /a: 1 3 2"]);
    assert_eq!((t.counts(), t.paths()), (WatchCounts::default(), 0));
}

#[test]
fn c_108_a_watch_set_twice_tells_once_and_its_own_connection_only() {
    let mut t = table();
    add(&mut t, WatchKind::Data, "/a", A);
    add(&mut t, WatchKind::Data, "/a", A);
    assert_eq!(t.counts().total(), 1);
    add(&mut t, WatchKind::Data, "/b", B);
    check(&mut t, ChangeKind::DataChanged, "/a", &["NodeDataChanged /a: 1"]);
}

#[test]
fn c_109_the_znode_comes_before_its_parent() {
    let mut t = table();
    for (change, event) in [(ChangeKind::Created, "NodeCreated"), (ChangeKind::Deleted, "NodeDeleted")] {
        add(&mut t, WatchKind::Child, "/a", A);
        add(&mut t, WatchKind::Data, "/a/b", A);
        check(&mut t, change, "/a/b", &[&format!("{event} /a/b: 1"), "NodeChildrenChanged /a: 1"]);
    }
}

#[test]
fn c_115_only_two_add_modes_exist_and_any_path_will_do() {
    assert_eq!(WatchKind::from_add_mode(0), Some(WatchKind::Persistent));
    assert_eq!(WatchKind::from_add_mode(1), Some(WatchKind::PersistentRecursive));
    assert_eq!((WatchKind::from_add_mode(2), WatchKind::from_add_mode(-1)), (None, None));
    let mut t = table();
    for path in ["", "/", "a", "//", "/a/"] {
        add(&mut t, WatchKind::Persistent, path, A);
        check(&mut t, ChangeKind::DataChanged, path, &[&format!("NodeDataChanged {path}: 1")]);
    }
}

#[test]
fn c_116_a_persistent_watch_sees_its_znode_again_and_again() {
    let mut t = table();
    add(&mut t, WatchKind::Persistent, "/a", A);
    for _ in 0..2 {
        check(&mut t, ChangeKind::Created, "/a", &["NodeCreated /a: 1"]);
        check(&mut t, ChangeKind::DataChanged, "/a", &["NodeDataChanged /a: 1"]);
        check(&mut t, ChangeKind::Created, "/a/b", &["NodeChildrenChanged /a: 1"]);
        check(&mut t, ChangeKind::DataChanged, "/a/b", &[]);
        check(&mut t, ChangeKind::Created, "/a/b/c", &[]);
        check(&mut t, ChangeKind::Deleted, "/a/b", &["NodeChildrenChanged /a: 1"]);
        check(&mut t, ChangeKind::Deleted, "/a", &["NodeDeleted /a: 1"]);
    }
}

#[test]
fn c_117_a_recursive_watch_sees_all_below_but_no_children_changed() {
    for root in ["/", "/a"] {
        let mut t = table();
        add(&mut t, WatchKind::PersistentRecursive, root, A);
        for path in ["/a", "/a/b", "/a/b/c"] {
            check(&mut t, ChangeKind::Created, path, &[&format!("NodeCreated {path}: 1")]);
            check(&mut t, ChangeKind::DataChanged, path, &[&format!("NodeDataChanged {path}: 1")]);
            check(&mut t, ChangeKind::Deleted, path, &[&format!("NodeDeleted {path}: 1")]);
        }
        let neighbour: &[&str] = if root == "/" { &["NodeCreated /ab: 1"] } else { &[] };
        check(&mut t, ChangeKind::Created, "/ab", neighbour);
    }
}

#[test]
fn c_118_modes_coexist_and_share_one_notification() {
    let mut t = table();
    for kind in [WatchKind::Data, WatchKind::Child, WatchKind::Persistent, WatchKind::PersistentRecursive] {
        add(&mut t, kind, "/a", A);
    }
    add(&mut t, WatchKind::PersistentRecursive, "/", A);
    assert_eq!(t.counts().total(), 3);
    for _ in 0..2 {
        check(&mut t, ChangeKind::DataChanged, "/a", &["NodeDataChanged /a: 1"]);
        check(&mut t, ChangeKind::Created, "/a/b", &["NodeCreated /a/b: 1", "NodeChildrenChanged /a: 1"]);
    }
    assert!(!t.contains(WatcherType::Data, "/a", A) && !t.contains(WatcherType::Children, "/a", A));
    assert!(t.contains(WatcherType::Persistent, "/a", A) && t.contains(WatcherType::PersistentRecursive, "/a", A));
}

#[test]
fn an_ancestor_gives_only_its_recursive_watches_and_keeps_the_others() {
    let mut t = table();
    add(&mut t, WatchKind::Data, "/a", A);
    add(&mut t, WatchKind::PersistentRecursive, "/a", A);
    add(&mut t, WatchKind::Data, "/a", B);
    check(&mut t, ChangeKind::DataChanged, "/a/b", &["NodeDataChanged /a/b: 1"]);
    check(&mut t, ChangeKind::DataChanged, "/a", &["NodeDataChanged /a: 1 2"]);
    check(&mut t, ChangeKind::DataChanged, "/a", &["NodeDataChanged /a: 1"]);
}

#[test]
fn a_child_watch_behind_a_recursive_one_is_used_up_in_silence() {
    let mut t = table();
    add(&mut t, WatchKind::PersistentRecursive, "/", A);
    add(&mut t, WatchKind::Child, "/a", A);
    check(&mut t, ChangeKind::Deleted, "/a", &["NodeDeleted /a: 1"]);
    assert!(!t.contains(WatcherType::Children, "/a", A));
}

#[test]
fn c_120_to_c_122_and_c_125_watches_are_caught_up_by_list() {
    use CatchUp::{Register, Send};
    let znode = Some((Zxid(10), Zxid(20)));
    for (list, znode, relative, expected) in [
        (Restored::Data, None, 5, Send(EventType::NodeDeleted)),
        (Restored::Data, znode, 9, Send(EventType::NodeDataChanged)),
        (Restored::Data, znode, 10, Register(WatchKind::Data)),
        (Restored::Exist, znode, 100, Send(EventType::NodeCreated)),
        (Restored::Exist, None, 0, Register(WatchKind::Data)),
        (Restored::Child, None, 5, Send(EventType::NodeDeleted)),
        (Restored::Child, znode, 19, Send(EventType::NodeChildrenChanged)),
        (Restored::Child, znode, 20, Register(WatchKind::Child)),
        (Restored::Data, znode, -1, Send(EventType::NodeDataChanged)),
        (Restored::Persistent, znode, 0, Register(WatchKind::Persistent)),
        (Restored::PersistentRecursive, None, 0, Register(WatchKind::PersistentRecursive)),
    ] {
        assert_eq!(catch_up(list, znode, relative), expected, "{list:?} {znode:?} {relative}");
    }
}

#[test]
fn c_126_and_c_127_watches_are_removed_and_checked_by_type() {
    use WatcherType::*;
    let kinds = [WatchKind::Data, WatchKind::Child, WatchKind::Persistent, WatchKind::PersistentRecursive];
    for (kind, found_as) in kinds.into_iter().zip([Data, Children, Persistent, PersistentRecursive]) {
        for asked in [Children, Data, Any, Persistent, PersistentRecursive] {
            let mut t = table();
            add(&mut t, kind, "/a", A);
            let expected = asked == found_as || asked == Any;
            assert_eq!(t.contains(asked, "/a", A), expected, "{kind:?} {asked:?}");
            assert!(!t.contains(asked, "/a", B) && !t.remove(asked, "/a", B) && !t.remove(asked, "/b", A));
            assert_eq!(t.remove(asked, "/a", A), expected, "{kind:?} {asked:?}");
            assert_eq!(t.counts() == WatchCounts::default(), expected);
            assert!(!t.remove(asked, "/a", A));
        }
    }
    assert_eq!([0, 6, 9, -1].map(WatcherType::from_code), [None; 4]);
    assert_eq!(WatcherType::from_code(1), Some(Children));
    assert_eq!(WatcherType::from_code(5), Some(PersistentRecursive));
}

#[test]
fn several_changes_of_one_txn_keep_their_order_in_one_buffer() {
    let mut t = table();
    add(&mut t, WatchKind::Persistent, "/a", A);
    add(&mut t, WatchKind::Data, "/b", A);
    let mut fired = Fired::default();
    for (change, path) in [(ChangeKind::Created, "/a"), (ChangeKind::DataChanged, "/b"), (ChangeKind::Deleted, "/a")] {
        t.fire(change, path, &mut fired);
    }
    let steps: Vec<_> = fired.steps().map(|step| (step.event as i32, step.path)).collect();
    assert_eq!(steps, [(1, "/a"), (3, "/b"), (2, "/a")]);
    fired.clear();
    assert!(fired.is_empty() && fired.steps().next().is_none());
}

#[test]
fn a_closed_connection_hears_nothing_and_leaves_nothing() {
    let mut t = table();
    for n in 0..100 {
        add(&mut t, WatchKind::Data, &format!("/{n}"), A);
        add(&mut t, WatchKind::Persistent, "/shared", ConnectionId(1000 + n));
    }
    t.close(A);
    t.close(A);
    assert_eq!(t.paths(), 1);
    for n in 0..100 {
        t.close(ConnectionId(1000 + n));
    }
    assert_eq!((t.counts(), t.paths(), t.path_bytes), (WatchCounts::default(), 0, 0));
}

#[test]
fn the_nearest_recursive_watch_is_told_first_however_deep_the_path() {
    let mut t = table();
    let deep = "/a".repeat(50_000);
    for (n, path) in ["/", "/a", &deep[..60_000], &deep, "/ab"].into_iter().enumerate() {
        add(&mut t, WatchKind::PersistentRecursive, path, ConnectionId(n as u64));
    }
    let event = format!("NodeDataChanged {deep}: 3 2 1 0");
    check(&mut t, ChangeKind::DataChanged, &deep, &[&event]);
}

#[test]
fn one_shot_watches_set_again_and_again_do_not_pile_up() {
    let mut t = table();
    let mut fired = Fired::default();
    for n in 0..10_000 {
        let path = format!("/{}", n % 7);
        add(&mut t, WatchKind::Data, &path, A);
        fired.clear();
        t.fire(ChangeKind::DataChanged, &path, &mut fired);
    }
    assert!(t.watching[0].paths.len() <= STALE_MIN + 2);
    assert!(t.nodes.len() <= 1);
}

#[test]
fn operators_see_data_watches_only() {
    let mut t = table();
    add(&mut t, WatchKind::Data, "/a", A);
    add(&mut t, WatchKind::Child, "/c", A);
    add(&mut t, WatchKind::Persistent, "/b", B);
    add(&mut t, WatchKind::Data, "/b", A);
    let by_path: Vec<(&str, Vec<ConnectionId>)> = t.data_watches().map(|(p, c)| (p, c.collect())).collect();
    assert_eq!(by_path, [("/a", vec![A]), ("/b", vec![B, A])]);
    let by_connection: Vec<_> = t.data_watches_by_connection().collect();
    assert_eq!(by_connection, [(A, vec!["/a", "/b"]), (B, vec!["/b"])]);
    let counts = WatchCounts { data_watches: 3, child_watches: 2, data_connections: 2, recursive_watches: 0 };
    assert_eq!(t.counts(), counts);
}

/// ZooKeeper's two tables as the reference describes them, without any thought of speed.
#[derive(Default)]
struct Model {
    data: BTreeMap<(String, u64), BTreeSet<&'static str>>,
    child: BTreeMap<(String, u64), BTreeSet<&'static str>>,
}

type ModelSteps = Vec<(EventType, String, BTreeSet<u64>)>;

impl Model {
    fn add(&mut self, kind: WatchKind, path: &str, connection: u64) {
        let key = (path.to_owned(), connection);
        let (data, child) = match kind {
            WatchKind::Data => (Some("standard"), None),
            WatchKind::Child => (None, Some("standard")),
            WatchKind::Persistent => (Some("persistent"), Some("persistent")),
            WatchKind::PersistentRecursive => (Some("recursive"), None),
        };
        data.map(|mode| self.data.entry(key.clone()).or_default().insert(mode));
        child.map(|mode| self.child.entry(key).or_default().insert(mode));
    }

    fn remove(&mut self, kind: WatcherType, path: &str, connection: u64) -> bool {
        let key = (path.to_owned(), connection);
        let (data, child): (&[&str], &[&str]) = match kind {
            WatcherType::Children => (&[], &["standard"]),
            WatcherType::Data => (&["standard"], &[]),
            WatcherType::Any => (&["standard", "persistent", "recursive"], &["standard", "persistent"]),
            WatcherType::Persistent => (&["persistent"], &["persistent"]),
            WatcherType::PersistentRecursive => (&["recursive"], &[]),
        };
        let mut removed = false;
        for (table, modes) in [(&mut self.data, data), (&mut self.child, child)] {
            for mode in modes {
                removed |= table.get_mut(&key).is_some_and(|set| set.remove(mode));
            }
            table.retain(|_, set| !set.is_empty());
        }
        removed
    }

    fn close(&mut self, connection: u64) {
        self.data.retain(|key, _| key.1 != connection);
        self.child.retain(|key, _| key.1 != connection);
    }

    fn take(table: &mut BTreeMap<(String, u64), BTreeSet<&'static str>>, path: &str) -> BTreeSet<u64> {
        let mut told = BTreeSet::new();
        for ((watched, connection), modes) in table.iter_mut() {
            if watched == path {
                told.insert(*connection);
                modes.remove("standard");
            }
        }
        table.retain(|_, modes| !modes.is_empty());
        told
    }

    fn fire(&mut self, change: ChangeKind, path: &str) -> ModelSteps {
        let event = match change {
            ChangeKind::Created => EventType::NodeCreated,
            ChangeKind::Deleted => EventType::NodeDeleted,
            ChangeKind::DataChanged => EventType::NodeDataChanged,
        };
        let mut told = Model::take(&mut self.data, path);
        for ancestor in path::self_and_ancestors(path).skip(1) {
            for ((watched, connection), modes) in &self.data {
                if watched == ancestor && modes.contains("recursive") {
                    told.insert(*connection);
                }
            }
        }
        if change == ChangeKind::Deleted {
            told.extend(Model::take(&mut self.child, path));
        }
        let mut steps = vec![(event, path.to_owned(), told)];
        if let (ChangeKind::Created | ChangeKind::Deleted, Some((parent, _))) = (change, path::split(path)) {
            steps.push((EventType::NodeChildrenChanged, parent.to_owned(), Model::take(&mut self.child, parent)));
        }
        steps.retain(|(_, _, told)| !told.is_empty());
        steps
    }
}

#[derive(Clone, Debug)]
enum Op {
    Add(WatchKind, &'static str, u64),
    Remove(WatcherType, &'static str, u64),
    Fire(ChangeKind, &'static str),
    Close(u64),
}

fn ops(connections: u64, length: usize) -> impl Strategy<Value = Vec<Op>> {
    let paths = || prop::sample::select(vec!["/", "/a", "/a/b", "/a/b/c", "/ab", "/a/bc", ""]);
    let kinds = prop::sample::select(vec![
        WatchKind::Data,
        WatchKind::Data,
        WatchKind::Child,
        WatchKind::Persistent,
        WatchKind::PersistentRecursive,
    ]);
    let types = (1..=5).prop_map(|code| WatcherType::from_code(code).unwrap());
    let changes = prop::sample::select(vec![ChangeKind::Created, ChangeKind::Deleted, ChangeKind::DataChanged]);
    let op = prop_oneof![
        8 => (kinds, paths(), 0..connections).prop_map(|(kind, path, c)| Op::Add(kind, path, c)),
        3 => (types, paths(), 0..connections).prop_map(|(kind, path, c)| Op::Remove(kind, path, c)),
        2 => (changes, paths()).prop_map(|(change, path)| Op::Fire(change, path)),
        1 => (0..connections).prop_map(Op::Close),
    ];
    prop::collection::vec(op, 0..length)
}

/// The steps of the table, each with its connections in order.
fn fire(table: &mut WatchTable, change: ChangeKind, path: &str) -> Vec<(EventType, String, Vec<u64>)> {
    let mut fired = Fired::default();
    table.fire(change, path, &mut fired);
    let told = |step: &Step| step.connections.iter().map(|c| c.0).collect();
    fired.steps().map(|step| (step.event, step.path.to_owned(), told(&step))).collect()
}

fn check_against_model(ops: &[Op]) {
    let (mut model, mut first, mut second) = (Model::default(), table(), WatchTable::new([9, 8, 7, 6]));
    for (at, op) in ops.iter().enumerate() {
        match *op {
            Op::Add(kind, path, c) => {
                model.add(kind, path, c);
                add(&mut first, kind, path, ConnectionId(c));
                add(&mut second, kind, path, ConnectionId(c));
            }
            Op::Remove(kind, path, c) => {
                let expected = model.remove(kind, path, c);
                assert_eq!(first.remove(kind, path, ConnectionId(c)), expected);
                assert_eq!(second.remove(kind, path, ConnectionId(c)), expected);
            }
            Op::Fire(change, path) => {
                let (expected, steps) = (model.fire(change, path), fire(&mut first, change, path));
                assert_eq!(steps, fire(&mut second, change, path), "order depends on the seed");
                let told: usize = steps.iter().map(|(_, _, told)| told.len()).sum();
                let sets: ModelSteps =
                    steps.into_iter().map(|(event, path, told)| (event, path, told.into_iter().collect())).collect();
                assert_eq!(told, sets.iter().map(|(_, _, told)| told.len()).sum::<usize>(), "told twice");
                assert_eq!(sets, expected);
            }
            Op::Close(c) => {
                model.close(c);
                first.close(ConnectionId(c));
                second.close(ConnectionId(c));
            }
        }
        if at % 16 == 0 {
            check_sums(&model, &first);
        }
    }
    check_sums(&model, &first);
}

fn check_sums(model: &Model, table: &WatchTable) {
    let connections: BTreeSet<u64> = model.data.keys().map(|(_, c)| *c).collect();
    let expected = WatchCounts {
        data_watches: model.data.len() as u64,
        child_watches: model.child.len() as u64,
        data_connections: connections.len() as u64,
        recursive_watches: model.data.values().filter(|modes| modes.contains("recursive")).count() as u64,
    };
    assert_eq!(table.counts(), expected);
    let is_recursive = |(_, modes): &(&(String, u64), &BTreeSet<&str>)| modes.contains("recursive");
    let recursive: BTreeSet<&String> = model.data.iter().filter(is_recursive).map(|((path, _), _)| path).collect();
    assert_eq!(table.recursive.len(), recursive.len());
    let paths: BTreeSet<&String> = model.data.keys().chain(model.child.keys()).map(|(path, _)| path).collect();
    assert_eq!(table.paths(), paths.len());
    let listed: BTreeSet<(String, u64)> =
        table.data_watches().flat_map(|(path, all)| all.map(move |c| (path.to_owned(), c.0))).collect();
    assert!(listed.iter().eq(model.data.keys()));
    let by_connection: BTreeSet<(String, u64)> = table
        .data_watches_by_connection()
        .flat_map(|(c, paths)| paths.into_iter().map(move |path| (path.to_owned(), c.0)))
        .collect();
    assert_eq!(by_connection, listed);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn the_table_is_zookeepers_two_tables_for_few_connections(ops in ops(5, 120)) {
        check_against_model(&ops);
    }

    #[test]
    fn the_table_is_zookeepers_two_tables_for_many_connections(ops in ops(300, 900)) {
        check_against_model(&ops);
    }
}
