//! Enough of the ensemble to decide.

use std::collections::{BTreeMap, BTreeSet};

use crate::config::{HostPort, Member, Membership, QuorumGroups, Role};
use crate::types::ids::ServerId;

/// The voters and the rule by which they decide. A value that the machines are given, and can be given anew.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Quorum {
    voters: BTreeSet<ServerId>,
    rule: Rule,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Rule {
    /// More than half of the voters (`QuorumMaj`).
    Majority,
    /// More than half of the weight in more than half of the groups that weigh anything (`QuorumHierarchical`).
    Groups { groups: QuorumGroups, weight_of_group: BTreeMap<i64, i64> },
}

impl Quorum {
    /// A majority of these voters.
    pub fn majority(voters: impl IntoIterator<Item = ServerId>) -> Quorum {
        let voters: BTreeSet<_> = voters.into_iter().collect();
        assert!(!voters.is_empty(), "an ensemble has at least one voter");
        Quorum { voters, rule: Rule::Majority }
    }

    /// Weight in groups. Weights below 0 count as 0.
    pub fn hierarchical(voters: impl IntoIterator<Item = ServerId>, groups: QuorumGroups) -> Quorum {
        let weights = groups.group_of.iter().map(|(server, group)| (*group, weight(&groups, *server)));
        let weight_of_group = sums(weights).into_iter().filter(|(_, weight)| *weight > 0).collect();
        Quorum { rule: Rule::Groups { groups, weight_of_group }, ..Quorum::majority(voters) }
    }

    pub fn voters(&self) -> impl Iterator<Item = ServerId> + '_ {
        self.voters.iter().copied()
    }

    pub fn contains(&self, server: ServerId) -> bool {
        self.voters.contains(&server)
    }

    /// Whether the voters for which `agrees` holds are enough. Servers that do not vote never count.
    pub fn is_quorum(&self, agrees: impl Fn(ServerId) -> bool) -> bool {
        let agreeing = self.voters().filter(|voter| agrees(*voter));
        match &self.rule {
            Rule::Majority => agreeing.count() > self.voters.len() / 2,
            Rule::Groups { groups, weight_of_group } => {
                let weights = agreeing.filter_map(|voter| Some((*groups.group_of.get(&voter)?, weight(groups, voter))));
                let won = sums(weights)
                    .into_iter()
                    .filter(|(group, sum)| weight_of_group.get(group).is_some_and(|all| *sum > all / 2));
                won.count() > weight_of_group.len() / 2
            }
        }
    }

    /// Whether `server` votes and weighs anything: whoever does not never leads.
    pub fn may_lead(&self, server: ServerId) -> bool {
        self.contains(server)
            && match &self.rule {
                Rule::Majority => true,
                Rule::Groups { groups, .. } => weight(groups, server) > 0,
            }
    }
}

fn weight(groups: &QuorumGroups, server: ServerId) -> i64 {
    groups.weight_of.get(&server).map_or(0, |weight| *weight.max(&0))
}

fn sums(weights: impl Iterator<Item = (i64, i64)>) -> BTreeMap<i64, i64> {
    let mut sums: BTreeMap<i64, i64> = BTreeMap::new();
    for (group, weight) in weights {
        let sum = sums.entry(group).or_default();
        *sum = sum.saturating_add(weight);
    }
    sums
}

/// What a server is in one configuration.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    Voter,
    Observer,
    /// It follows and acks as a voter does, and counts in no quorum: a participant that the configuration does not
    /// list.
    NonVoting,
}

/// One configuration: who is who, where each one listens, and how they decide.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ensemble {
    membership: Membership,
    quorum: Quorum,
}

impl Ensemble {
    /// `None`: nobody votes.
    pub fn new(membership: Membership) -> Option<Ensemble> {
        let voters: BTreeSet<ServerId> = membership.participants().map(|member| member.id).collect();
        if voters.is_empty() {
            return None;
        }
        let quorum = match membership.groups.clone() {
            None => Quorum::majority(voters),
            Some(groups) => Quorum::hierarchical(voters, groups),
        };
        Some(Ensemble { membership, quorum })
    }

    pub fn membership(&self) -> &Membership {
        &self.membership
    }

    pub fn quorum(&self) -> &Quorum {
        &self.quorum
    }

    pub fn members(&self) -> impl Iterator<Item = ServerId> + '_ {
        self.membership.members.keys().copied()
    }

    pub fn has(&self, server: ServerId) -> bool {
        self.membership.members.contains_key(&server)
    }

    pub fn standing(&self, server: ServerId) -> Standing {
        match self.membership.members.get(&server).map(|member| member.role) {
            Some(Role::Participant) => Standing::Voter,
            Some(Role::Observer) => Standing::Observer,
            None => Standing::NonVoting,
        }
    }

    /// Where `server` listens for votes. Empty: it is not a member.
    pub fn election_addresses(&self, server: ServerId) -> Vec<HostPort> {
        self.addresses(server, |member| {
            let hosts = member.addresses.iter();
            hosts.map(|address| HostPort { host: address.host.clone(), port: address.election_port }).collect()
        })
    }

    /// Where `server` listens for learners while it leads. Empty: it is not a member.
    pub fn quorum_addresses(&self, server: ServerId) -> Vec<HostPort> {
        self.addresses(server, |member| {
            let hosts = member.addresses.iter();
            hosts.map(|address| HostPort { host: address.host.clone(), port: address.quorum_port }).collect()
        })
    }

    fn addresses(&self, server: ServerId, of: impl Fn(&Member) -> Vec<HostPort>) -> Vec<HostPort> {
        self.membership.members.get(&server).map(of).unwrap_or_default()
    }

    /// The configuration as other servers are told it. Without secure client ports, which versions before 3.10 cannot
    /// parse. `None`: a single voter with observers, on which Java's `FastLeaderElection` loses its receiver thread.
    pub fn text_for_peers(&self) -> Option<String> {
        if self.membership.participants().count() < 2 && self.membership.observers().next().is_some() {
            return None;
        }
        let mut told = self.membership.clone();
        told.members.values_mut().for_each(|member| member.secure_client = None);
        Some(told.config_text())
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

    /// Groups of servers, each server with its weight.
    fn groups(groups: &[&[(i64, i64)]]) -> Quorum {
        let mut value = QuorumGroups::default();
        for (group, servers) in (1..).zip(groups) {
            for (server, weight) in *servers {
                value.group_of.insert(ServerId(*server), group);
                value.weight_of.insert(ServerId(*server), *weight);
            }
        }
        Quorum::hierarchical(value.group_of.clone().into_keys(), value)
    }

    //
    #[test]
    fn a_hierarchical_quorum_is_more_than_half_of_the_weight_in_more_than_half_of_the_groups() {
        let check = |quorum: &Quorum, agreeing: &[i64], expected| {
            assert_eq!(quorum.is_quorum(|server| agreeing.contains(&server.0)), expected, "{agreeing:?}");
        };
        let even = groups(&[&[(1, 1), (2, 1), (3, 1)], &[(4, 1), (5, 1), (6, 1)], &[(7, 1), (8, 1), (9, 1)]]);
        check(&even, &[1, 2, 4, 5], true);
        check(&even, &[1, 2, 3, 4, 7], false);
        check(&even, &[1, 4, 7], false);
        let weighed = groups(&[&[(1, 3), (2, 1), (3, 1)], &[(4, 1)], &[(7, 0), (8, 0)]]);
        check(&weighed, &[1, 4], true);
        check(&weighed, &[2, 3, 4, 7, 8], false);
        check(&weighed, &[1, 2, 3, 7, 8], false);
        let nothing = groups(&[&[(1, 0), (2, -5)]]);
        check(&nothing, &[1, 2], false);
    }

    //
    #[test]
    fn who_does_not_vote_or_weighs_nothing_never_leads() {
        let weighed = groups(&[&[(1, 1), (2, 0), (3, -1)]]);
        let may_lead = |quorum: &Quorum| (1..=4).filter(|id| quorum.may_lead(ServerId(*id))).collect::<Vec<_>>();
        assert_eq!(may_lead(&weighed), [1]);
        assert_eq!(may_lead(&Quorum::majority([ServerId(2), ServerId(3)])), [2, 3]);
    }

    fn ensemble(lines: &[(i64, &str)]) -> Option<Ensemble> {
        let member = |(id, line): &(i64, &str)| (ServerId(*id), Member::parse(ServerId(*id), line, true).unwrap());
        Ensemble::new(Membership { members: lines.iter().map(member).collect(), ..Membership::default() })
    }

    #[test]
    fn members_stand_as_their_lines_say() {
        let three = ensemble(&[(1, "a:1:2|b:3:4"), (2, "c:1:2;5;6"), (3, "d:1:2:observer")]).unwrap();
        assert_eq!(three.quorum(), &Quorum::majority([ServerId(1), ServerId(2)]));
        let standing = [1, 3, 4].map(|id| three.standing(ServerId(id)));
        assert_eq!(standing, [Standing::Voter, Standing::Observer, Standing::NonVoting]);
        assert_eq!(three.election_addresses(ServerId(1)), [HostPort::new("a", 2), HostPort::new("b", 4)]);
        assert_eq!(three.quorum_addresses(ServerId(1)), [HostPort::new("a", 1), HostPort::new("b", 3)]);
        assert_eq!(three.quorum_addresses(ServerId(4)), []);
        assert_eq!(ensemble(&[(3, "d:1:2:observer")]), None);
    }

    //
    #[test]
    fn peers_are_told_no_text_that_java_cannot_take() {
        let text = |lines: &[(i64, &str)]| ensemble(lines).unwrap().text_for_peers();
        let two = text(&[(1, "a:1:2;5;6"), (2, "b:1:2;;6")]);
        assert_eq!(two.as_deref(), Some("server.1=a:1:2:participant;0.0.0.0:5\nserver.2=b:1:2:participant\nversion=0"));
        assert_eq!(text(&[(1, "a:1:2")]).as_deref(), Some("server.1=a:1:2:participant\nversion=0"));
        assert_eq!(text(&[(1, "a:1:2"), (2, "b:1:2:observer")]), None);
    }
}
