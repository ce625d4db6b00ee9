//! Lease updates that come too late: what a peer did not answer in time can still be on its way, behind newer changes of the same leases.
//!
//! Every bulk command between two Aplomados carries a session (one life of one sender towards one peer), its number in it, and the lowest
//! number that its sender has not given up. A command below what its sender gave up is not made: what mattered of it was sent again since.
//!
//! A server that copies from another one is told up to which number the other's commands tell of leases that are in the copy ([`PostMark`]). One
//! of these that comes later does not replace anything newer.

use std::collections::{BTreeSet, VecDeque};

/// Sessions that are remembered: more than anybody has peers.
const SESSIONS_MAX: usize = 32;

/// Where a command stands among those of its sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PostNumber {
    /// The sender's life. No two have the same.
    pub session: u64,
    /// Its own number.
    pub number: u64,
    /// The sender does not wait for answers below this any more.
    pub since: u64,
}

/// Up to where the commands of a session are in what its sender lets be copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PostMark {
    /// The sender's life.
    pub session: u64,
    /// The last number.
    pub last: u64,
}

impl PostMark {
    /// Whether the copy has what the command tells of, or newer leases.
    #[must_use]
    pub const fn covers(self, post: PostNumber) -> bool {
        post.session == self.session && post.number <= self.last
    }
}

/// The commands that a sender has under way to one peer.
#[derive(Clone, Debug, Default)]
pub struct PostNumbers {
    session: u64,
    last: u64,
    under_way: BTreeSet<u64>,
}

impl PostNumbers {
    /// Numbers of this session, from 1.
    #[must_use]
    pub const fn new(session: u64) -> Self {
        Self { session, last: 0, under_way: BTreeSet::new() }
    }

    /// The number of a command that is sent now.
    pub fn begin(&mut self) -> PostNumber {
        self.last += 1;
        self.under_way.insert(self.last);
        let since = self.under_way.first().copied().unwrap_or(self.last);
        PostNumber { session: self.session, number: self.last, since }
    }

    /// What is copied from now on is at least as new as all commands until now.
    #[must_use]
    pub const fn mark(&self) -> PostMark {
        PostMark { session: self.session, last: self.last }
    }

    /// A command was answered, or its answer is not waited for any more.
    pub fn end(&mut self, number: u64) {
        self.under_way.remove(&number);
    }
}

/// What a receiver knows of its senders' commands.
#[derive(Clone, Debug, Default)]
pub struct PostsHeard {
    /// What each session has said last of what it has given up, the newest session last.
    sessions: VecDeque<(u64, u64)>,
}

impl PostsHeard {
    /// A command has come; whether it is too late for it.
    pub fn is_late(&mut self, post: PostNumber) -> bool {
        if let Some((_, since)) = self.sessions.iter_mut().find(|(session, _)| *session == post.session) {
            let is_late = post.number < *since;
            *since = post.since.max(*since);
            return is_late;
        }
        if self.sessions.len() >= SESSIONS_MAX {
            self.sessions.pop_front();
        }
        self.sessions.push_back((post.session, post.since));
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_given_up_is_late_and_what_is_under_way_is_not() {
        let (mut numbers, mut heard) = (PostNumbers::new(7), PostsHeard::default());
        let [one, two] = [numbers.begin(), numbers.begin()];
        assert!(!heard.is_late(two), "two connections do not keep the order");
        assert!(!heard.is_late(one));
        numbers.end(two.number);
        assert!(!heard.is_late(numbers.begin()));
        assert!(!heard.is_late(one), "it is still waited for");
        numbers.end(one.number);
        let four = numbers.begin();
        assert_eq!((four.number, four.since), (4, 3));
        assert!(!heard.is_late(four));
        assert!(heard.is_late(one) && heard.is_late(two));
        assert!(!heard.is_late(four), "once more");
    }

    #[test]
    fn a_copy_has_what_was_sent_before_it_by_the_same_life() {
        let mut numbers = PostNumbers::new(7);
        assert!(!numbers.mark().covers(PostNumber { session: 7, number: 1, since: 1 }));
        let one = numbers.begin();
        let mark = numbers.mark();
        numbers.end(one.number);
        assert!(mark.covers(one) && !mark.covers(numbers.begin()));
        assert!(!mark.covers(PostNumber { session: 8, ..one }));
    }

    #[test]
    fn a_life_does_not_disturb_the_next_and_memory_is_bounded() {
        let mut heard = PostsHeard::default();
        let post = |session, number| PostNumber { session, number, since: number };
        assert!(!heard.is_late(post(0, 9)));
        assert!(!heard.is_late(post(1, 1)), "another life counts anew");
        assert!(heard.is_late(post(0, 8)), "what is left of the one before");
        assert!(!heard.is_late(post(1, 2)));
        for session in 2..1000 {
            assert!(!heard.is_late(post(session, 5)));
        }
        assert_eq!(heard.sessions.len(), SESSIONS_MAX);
    }
}
