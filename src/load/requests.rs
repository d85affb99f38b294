//! Request frames, encoded once; each request is a copy with its xid and its numbers written over.

use super::keys::{Dice, KeyChooser};
use super::paths::{
    CREATES_PER_SESSION_MAX, DIRECTORY_PATTERN_BYTES, KEY_PATTERN, KEYS_PER_DIRECTORY, OWN_PATTERN, Paths,
};
use super::workload::{Mix, Op};
use crate::wire::client::OpCode;
use crate::wire::client_encode::{self as encode, ANY_VERSION, XID_AT};

/// A frame and where its numbers stand: a directory's 6 digits, then a leaf's, for each path in it.
#[derive(Clone, Debug)]
pub struct Template {
    frame: Vec<u8>,
    /// Offset of the pattern of each path.
    paths_at: Vec<usize>,
    /// Bytes of a whole pattern.
    pattern_bytes: usize,
}

impl Template {
    fn new(pattern: &str, encode: impl FnOnce(&mut Vec<u8>)) -> Template {
        let mut frame = Vec::new();
        encode(&mut frame);
        let is_pattern = |at: &usize| frame[*at..].starts_with(pattern.as_bytes());
        let paths_at = (0..frame.len()).filter(is_pattern).collect();
        Template { frame, paths_at, pattern_bytes: pattern.len() }
    }

    /// Appends the frame with `numbers`, a (directory, leaf) for each of its paths.
    fn put(&self, out: &mut Vec<u8>, xid: i32, mut numbers: impl FnMut() -> (u32, u32)) {
        let start = out.len();
        out.extend_from_slice(&self.frame);
        let frame = &mut out[start..];
        frame[XID_AT..XID_AT + 4].copy_from_slice(&xid.to_be_bytes());
        for &at in &self.paths_at {
            let (directory, leaf) = numbers();
            put_digits(&mut frame[at + 1..at + DIRECTORY_PATTERN_BYTES], directory);
            // A directory's own path has no leaf: the range is empty or backwards.
            if let Some(place) = frame.get_mut(at + DIRECTORY_PATTERN_BYTES + 2..at + self.pattern_bytes) {
                put_digits(place, leaf);
            }
        }
    }
}

/// Decimal, with leading zeros, into the whole of `place`.
fn put_digits(place: &mut [u8], mut number: u32) {
    for digit in place.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

/// A template for each operation of the mix, of filling and of clean-up.
#[derive(Clone, Debug)]
pub struct Templates {
    get: Template,
    exists: Template,
    set: Template,
    children: Template,
    multi: Template,
    sync: Template,
    create_own: Template,
    delete_own: Template,
    create_key: Template,
    delete_key: Template,
}

impl Templates {
    /// `multi_size`: how many sets a multi holds.
    pub fn new(paths: &Paths, value: &[u8], multi_size: usize) -> Templates {
        let (key, own) = (paths.key_pattern(), paths.own_pattern());
        let directory = &key[..paths.prefix.len() + 1 + DIRECTORY_PATTERN_BYTES];
        let keys = vec![key.clone(); multi_size];
        let keyed = |encode: &dyn Fn(&mut Vec<u8>)| Template::new(KEY_PATTERN, encode);
        let owned = |encode: &dyn Fn(&mut Vec<u8>)| Template::new(OWN_PATTERN, encode);
        let directory_digits = &KEY_PATTERN[..DIRECTORY_PATTERN_BYTES];
        Templates {
            get: keyed(&|out| encode::read(out, 0, OpCode::GetData, &key, false)),
            exists: keyed(&|out| encode::read(out, 0, OpCode::Exists, &key, false)),
            set: keyed(&|out| encode::set_data(out, 0, &key, value, ANY_VERSION)),
            children: Template::new(directory_digits, |out| {
                encode::read(out, 0, OpCode::GetChildren, directory, false);
            }),
            multi: keyed(&|out| encode::multi_set_data(out, 0, &keys, value)),
            sync: keyed(&|out| encode::sync(out, 0, &key)),
            create_own: owned(&|out| encode::create(out, 0, &own, value, 0)),
            delete_own: owned(&|out| encode::delete(out, 0, &own, ANY_VERSION)),
            create_key: keyed(&|out| encode::create(out, 0, &key, value, 0)),
            delete_key: keyed(&|out| encode::delete(out, 0, &key, ANY_VERSION)),
        }
    }

    pub fn create_key(&self, out: &mut Vec<u8>, xid: i32, key: u32) {
        self.create_key.put(out, xid, || numbers(key));
    }

    pub fn delete_key(&self, out: &mut Vec<u8>, xid: i32, key: u32) {
        self.delete_key.put(out, xid, || numbers(key));
    }
}

fn numbers(key: u32) -> (u32, u32) {
    (key / KEYS_PER_DIRECTORY, key)
}

/// The znodes that one session created in the mix and has not deleted: `deleted ≤ created`.
#[derive(Clone, Copy, Debug)]
pub struct OwnZnodes {
    pub session: u32,
    pub created: u32,
    pub deleted: u32,
}

/// Draws the mix's next request. A delete takes the oldest znode that its session created; when there is none it
/// creates one instead and counts as a create, so every mix can go on for ever.
#[derive(Clone, Debug)]
pub struct Generator {
    pub mix: Mix,
    pub dice: Dice,
    pub keys: KeyChooser,
}

impl Generator {
    /// Appends a request and tells which operation it became.
    pub fn put_next(&mut self, templates: &Templates, own: &mut OwnZnodes, out: &mut Vec<u8>, xid: i32) -> Op {
        let drawn = match self.mix.pick(&mut self.dice) {
            Op::Delete if own.deleted == own.created => Op::Create,
            Op::Create if own.created + 1 == CREATES_PER_SESSION_MAX => Op::Delete,
            drawn => drawn,
        };
        let Generator { dice, keys, .. } = self;
        let mut key = || numbers(keys.next(dice));
        match drawn {
            Op::Get => templates.get.put(out, xid, key),
            Op::Exists => templates.exists.put(out, xid, key),
            Op::Set => templates.set.put(out, xid, key),
            Op::Multi => templates.multi.put(out, xid, key),
            Op::Sync => templates.sync.put(out, xid, key),
            Op::Children => templates.children.put(out, xid, || (key().0, 0)),
            Op::Create => {
                templates.create_own.put(out, xid, || (own.session, own.created));
                own.created += 1;
            }
            Op::Delete => {
                templates.delete_own.put(out, xid, || (own.session, own.deleted));
                own.deleted += 1;
            }
            Op::Fill | Op::Connect | Op::Close | Op::Ping | Op::Arm | Op::Event | Op::LastEvent => {
                unreachable!("Mix::parse lets only mixable operations in")
            }
        }
        drawn
    }
}

/// Printable bytes that do not repeat, the same for one seed.
pub fn value(size: usize, seed: u64) -> Vec<u8> {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+-";
    let mut dice = Dice::new(seed, 0x76a1);
    (0..size).map(|_| LETTERS[dice.below(64) as usize]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::keys::KeyDistribution;
    use crate::load::workload::Workload;

    fn paths() -> Paths {
        Paths { prefix: "/bench".into() }
    }

    fn generator(mix: &str) -> Generator {
        let Workload::Mix(mix) = Workload::parse(mix).unwrap() else { panic!("a mix") };
        let keys = KeyChooser::new(KeyDistribution::Sequential, 1_000_000, 123_456);
        Generator { mix, dice: Dice::new(1, 0), keys }
    }

    fn next(generator: &mut Generator, own: &mut OwnZnodes, xid: i32) -> (Op, Vec<u8>) {
        let templates = Templates::new(&paths(), b"value", 2);
        let mut out = Vec::new();
        let op = generator.put_next(&templates, own, &mut out, xid);
        (op, out)
    }

    #[test]
    fn a_filled_template_is_the_frame_encoded_afresh() {
        let own = &mut OwnZnodes { session: 7, created: 41, deleted: 3 };
        let check = |mix: &str, own: &mut OwnZnodes, expected: &dyn Fn(&mut Vec<u8>)| {
            let mut fresh = Vec::new();
            expected(&mut fresh);
            assert_eq!(next(&mut generator(mix), own, 99).1, fresh, "{mix}");
        };
        let key = paths().key(123_456);
        check("get", own, &|out| encode::read(out, 99, OpCode::GetData, &key, false));
        check("exists", own, &|out| encode::read(out, 99, OpCode::Exists, &key, false));
        check("set", own, &|out| encode::set_data(out, 99, &key, b"value", -1));
        check("sync", own, &|out| encode::sync(out, 99, &key));
        check("children", own, &|out| encode::read(out, 99, OpCode::GetChildren, "/bench/d001234", false));
        check("multi", own, &|out| {
            encode::multi_set_data(out, 99, &[key.clone(), paths().key(123_457)], b"value");
        });
        check("create", own, &|out| encode::create(out, 99, "/bench/s000007/c000000041", b"value", 0));
        check("delete", own, &|out| encode::delete(out, 99, "/bench/s000007/c000000003", -1));
        assert_eq!((own.created, own.deleted), (42, 4));
    }

    #[test]
    fn a_delete_without_a_znode_of_its_own_creates_one() {
        let own = &mut OwnZnodes { session: 0, created: 0, deleted: 0 };
        let generator = &mut generator("delete");
        let ops: Vec<Op> = (0..4).map(|_| next(generator, own, 1).0).collect();
        assert_eq!(ops, [Op::Create, Op::Delete, Op::Create, Op::Delete]);
    }

    #[test]
    fn values_have_their_size_and_their_seed() {
        assert_eq!(value(100, 1).len(), 100);
        assert_eq!(value(100, 1), value(100, 1));
        assert_ne!(value(100, 1), value(100, 2));
    }
}
