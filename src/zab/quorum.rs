//! Enough of the ensemble to decide.

use std::collections::BTreeSet;

use crate::types::ids::ServerId;

/// The voters and the rule by which they decide: more than half of them (`QuorumMaj`).
/// A value that the machines are given, and can be given anew.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Quorum {
    voters: BTreeSet<ServerId>,
}

impl Quorum {
    /// A majority of these voters.
    pub fn majority(voters: impl IntoIterator<Item = ServerId>) -> Quorum {
        let voters: BTreeSet<_> = voters.into_iter().collect();
        assert!(!voters.is_empty(), "an ensemble has at least one voter");
        Quorum { voters }
    }

    pub fn voters(&self) -> impl Iterator<Item = ServerId> + '_ {
        self.voters.iter().copied()
    }

    pub fn contains(&self, server: ServerId) -> bool {
        self.voters.contains(&server)
    }

    /// Whether the voters for which `agrees` holds are enough. Servers that do not vote never count.
    pub fn is_quorum(&self, agrees: impl Fn(ServerId) -> bool) -> bool {
        self.voters().filter(|voter| agrees(*voter)).count() > self.voters.len() / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quorum_is_more_than_half_of_the_voters() {
        let check = |voters: i64, agreeing: i64, expected| {
            let quorum = Quorum::majority((1..=voters).map(ServerId));
            assert_eq!(quorum.is_quorum(|server| server.0 <= agreeing), expected, "{agreeing} of {voters}");
        };
        check(1, 1, true);
        check(1, 0, false);
        check(2, 1, false);
        check(3, 2, true);
        check(4, 2, false);
        check(5, 3, true);
    }
}
