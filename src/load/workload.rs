//! What is done: the operations that are counted, and in which proportion they come.

use super::error::LoadError;
use super::keys::Dice;

/// One row of the report.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Op {
    Get,
    Exists,
    Set,
    Create,
    Delete,
    Children,
    Multi,
    Sync,
    /// A create of `--fill` or of the znodes that the mix needs.
    Fill,
    /// From the first SYN (or the intended time) to the `ConnectResponse`.
    Connect,
    Close,
    Ping,
    /// Setting a watch again after it fired.
    Arm,
    /// From sending the set to one watcher's event.
    Event,
    /// From sending the set to the last watcher's event.
    LastEvent,
}

impl Op {
    pub const COUNT: usize = 15;

    pub const ALL: [Op; Op::COUNT] = [
        Op::Get,
        Op::Exists,
        Op::Set,
        Op::Create,
        Op::Delete,
        Op::Children,
        Op::Multi,
        Op::Sync,
        Op::Fill,
        Op::Connect,
        Op::Close,
        Op::Ping,
        Op::Arm,
        Op::Event,
        Op::LastEvent,
    ];

    pub const fn index(self) -> usize {
        self as usize
    }

    pub const fn name(self) -> &'static str {
        match self {
            Op::Get => "get",
            Op::Exists => "exists",
            Op::Set => "set",
            Op::Create => "create",
            Op::Delete => "delete",
            Op::Children => "children",
            Op::Multi => "multi",
            Op::Sync => "sync",
            Op::Fill => "fill",
            Op::Connect => "connect",
            Op::Close => "close",
            Op::Ping => "ping",
            Op::Arm => "arm",
            Op::Event => "event",
            Op::LastEvent => "last-event",
        }
    }

    /// Whether it needs the znodes of `--keys`.
    const fn needs_keys(self) -> bool {
        matches!(self, Op::Get | Op::Exists | Op::Set | Op::Children | Op::Multi | Op::Sync)
    }
}

/// The operations that a mix may name.
const MIXABLE: [Op; 8] = [Op::Get, Op::Exists, Op::Set, Op::Create, Op::Delete, Op::Children, Op::Multi, Op::Sync];

/// What a run does, once its sessions stand.
#[derive(Clone, PartialEq, Debug)]
pub enum Workload {
    Mix(Mix),
    /// Create znodes, as many as asked, and end.
    Fill,
    /// All sessions watch one znode, one more sets it.
    Watch,
    /// Open and close sessions.
    Storm,
    /// Hold sessions open and ping.
    Idle,
    /// One paced writer at each server, for what happens when servers go.
    Failover,
}

impl Workload {
    /// Text: `get=70,set=30`, or the name of a workload of its own.
    pub fn parse(text: &str) -> Result<Workload, LoadError> {
        match text.trim() {
            "fill" => Ok(Workload::Fill),
            "watch" => Ok(Workload::Watch),
            "storm" => Ok(Workload::Storm),
            "idle" => Ok(Workload::Idle),
            "failover" => Ok(Workload::Failover),
            mix => Mix::parse(mix).map(Workload::Mix),
        }
    }

    pub fn name(&self) -> String {
        match self {
            Workload::Mix(mix) => mix.to_string(),
            Workload::Fill => "fill".into(),
            Workload::Watch => "watch".into(),
            Workload::Storm => "storm".into(),
            Workload::Idle => "idle".into(),
            Workload::Failover => "failover".into(),
        }
    }

    /// Whether `op` counts into the total row: what the workload is about, and nothing twice.
    pub fn counts(&self, op: Op) -> bool {
        match self {
            Workload::Mix(mix) => mix.weights.iter().any(|(mixed, _)| *mixed == op),
            Workload::Fill => op == Op::Fill,
            Workload::Watch => op == Op::Event,
            Workload::Storm => op == Op::Connect,
            Workload::Idle => op == Op::Ping,
            Workload::Failover => op == Op::Set,
        }
    }

    pub fn needs_keys(&self) -> bool {
        match self {
            Workload::Mix(mix) => mix.weights.iter().any(|(op, _)| op.needs_keys()),
            Workload::Fill | Workload::Watch | Workload::Storm | Workload::Idle | Workload::Failover => false,
        }
    }

    pub fn creates(&self) -> bool {
        match self {
            Workload::Mix(mix) => mix.weights.iter().any(|(op, _)| matches!(op, Op::Create | Op::Delete)),
            Workload::Fill | Workload::Watch | Workload::Storm | Workload::Idle | Workload::Failover => false,
        }
    }
}

/// Operations with their weights.
#[derive(Clone, PartialEq, Debug)]
pub struct Mix {
    /// Weights are above 0, operations are different.
    weights: Vec<(Op, u32)>,
    total: u32,
}

impl Mix {
    fn parse(text: &str) -> Result<Mix, LoadError> {
        let mut weights: Vec<(Op, u32)> = Vec::new();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let (name, weight) = part.split_once('=').unwrap_or((part, "1"));
            let bad = |why: &str| LoadError::Mix { part: part.to_owned(), why: why.to_owned() };
            let op = MIXABLE.into_iter().find(|op| op.name() == name.trim());
            let op = op.ok_or_else(|| bad(&unknown(name.trim())))?;
            let weight: u32 = weight.trim().parse().map_err(|_| bad("the weight is a whole number, as in get=70"))?;
            if weight > 1_000_000 {
                return Err(bad("the largest weight is 1000000"));
            }
            if weights.iter().any(|(known, _)| *known == op) {
                return Err(bad("it stands there twice; add the weights up"));
            }
            if weight > 0 {
                weights.push((op, weight));
            }
        }
        if weights.is_empty() {
            let why = "no operation has a weight above 0; try get=70,set=30";
            return Err(LoadError::Mix { part: text.to_owned(), why: why.to_owned() });
        }
        let total = weights.iter().map(|(_, weight)| weight).sum();
        Ok(Mix { weights, total })
    }

    pub fn pick(&self, dice: &mut Dice) -> Op {
        let mut at = dice.below(self.total);
        for &(op, weight) in &self.weights {
            if at < weight {
                return op;
            }
            at -= weight;
        }
        unreachable!("at < total = sum of the weights")
    }
}

fn unknown(name: &str) -> String {
    match name {
        "fill" | "watch" | "storm" | "idle" | "failover" => "it is a workload of its own; name it alone".to_owned(),
        _ => format!("operations are {}", MIXABLE.map(Op::name).join(", ")),
    }
}

impl std::fmt::Display for Mix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (at, (op, weight)) in self.weights.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            write!(f, "{comma}{}={weight}", op.name())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mix(text: &str) -> Mix {
        Mix::parse(text).unwrap()
    }

    #[test]
    fn every_op_stands_at_its_index() {
        assert!(Op::ALL.iter().enumerate().all(|(at, op)| op.index() == at));
    }

    #[test]
    fn a_mix_is_read_and_printed() {
        assert_eq!(mix("get=70, set=30").to_string(), "get=70,set=30");
        assert_eq!(mix("get").to_string(), "get=1");
        assert_eq!(mix("get=1,set=0").to_string(), "get=1");
        assert_eq!(Workload::parse("storm"), Ok(Workload::Storm));
    }

    #[test]
    fn a_wrong_mix_says_which_part_and_why() {
        let check = |text: &str, words: &str| {
            let error = Workload::parse(text).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        };
        check("get=70,put=30", "put=30");
        check("get=70,put=30", "operations are get, exists, set");
        check("get=x", "whole number");
        check("get=1,get=2", "twice");
        check("get=1,watch=2", "of its own");
        check("", "above 0");
        check("get=0", "above 0");
    }

    #[test]
    fn operations_come_in_their_proportion() {
        let (mix, mut dice) = (mix("get=70,set=30"), Dice::new(1, 0));
        let sets = (0..100_000).filter(|_| mix.pick(&mut dice) == Op::Set).count();
        assert!((29_000..31_000).contains(&sets), "{sets}");
    }
}
