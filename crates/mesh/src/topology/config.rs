//! How many tunnels, and how soon. Networks may set it by their signed parameters.

use std::time::Duration;

use super::MAX_TUNNELS;
use crate::{certificate::Class, parameters::Tunnels};

/// How many tunnels of each kind, and how they are judged.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Tunnels at most, of all kinds.
    pub most: usize,
    /// Random links that this side asks for.
    pub asked: usize,
    /// Random links that there shall be: asked and granted.
    pub random: usize,
    /// Tunnels that there shall be at least: what others lack of it, random links make up, once a node is no longer new.
    pub least: usize,
    /// How long a node is new.
    pub new: Duration,
    /// How long others' wishes are waited for, before more than [`Config::asked`] links are asked for.
    pub granting: Duration,
    /// Random links at most: nobody is granted more.
    pub max_random: usize,
    /// Random links at most of a public node that grants one to a node which only public ones can have links with.
    pub max_needed: usize,
    /// Own tunnels by gain.
    pub gain: usize,
    /// Tunnels for latency at most, own and granted.
    pub max_chosen: usize,
    /// Whether the nearest node gets a tunnel.
    pub near: bool,
    /// Entries granted at most.
    pub max_entries: usize,
    /// Random links to public nodes of a node that is not public.
    pub public: usize,
    /// Hops of a random walk; in its second half whoever has room may end it.
    pub hops: u8,
    /// Destinations by which tunnels are judged.
    pub sample: usize,
    /// Candidates that are measured in a round.
    pub tried: usize,
    /// From one round to the next.
    pub round: Duration,
    /// How long answers are waited for in a round.
    pub patience: Duration,
    /// While there are fewer tunnels by gain than there may be, one is worth it that saves this part of paths' lengths,
    pub free_share: f64,
    /// or this much.
    pub free_saved: Duration,
    /// How much nearer than the nearest a node is that gets a tunnel, as a part of the round trip.
    pub nearer: f64,
    /// A tunnel replaces another when it saves more than that by this part of paths' lengths,
    pub swap_share: f64,
    /// or by this much.
    pub swap_saved: Duration,
    /// How long that has to last.
    pub sustained: Duration,
    /// A tunnel that was made for latency stays at least so long.
    pub min_life: Duration,
    /// From one tunnel for latency to the next.
    pub swap: Duration,
    /// How long a wish or a tunnel that is coming up is waited for.
    pub open: Duration,
    /// How long routes may take to leave a tunnel that drains. It stays if they don't.
    pub drain: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            most: MAX_TUNNELS,
            asked: 3,
            random: 6,
            least: 10,
            new: Duration::from_secs(300),
            granting: Duration::from_secs(30),
            max_random: 8,
            max_needed: 12,
            gain: 2,
            max_chosen: 8,
            near: true,
            max_entries: 12,
            public: 2,
            hops: 16,
            sample: 40,
            tried: 16,
            round: Duration::from_secs(30),
            patience: Duration::from_secs(10),
            free_share: 0.02,
            free_saved: Duration::from_millis(1),
            nearer: 0.1,
            swap_share: 0.03,
            swap_saved: Duration::from_millis(2),
            sustained: Duration::from_secs(60),
            min_life: Duration::from_secs(600),
            swap: Duration::from_secs(60),
            open: Duration::from_secs(10),
            drain: Duration::from_secs(60),
        }
    }
}

impl Config {
    /// Of a node that forwards for nobody: ways into the mesh, two at most, and none that it grants.
    #[must_use]
    pub fn client(self) -> Config {
        Config {
            most: 2,
            asked: 0,
            random: 0,
            least: 0,
            max_random: 0,
            max_needed: 0,
            gain: 0,
            max_chosen: 0,
            near: false,
            max_entries: 0,
            public: 0,
            ..self
        }
    }

    /// As a network's parameters want it of a node of that class; the rest stays. Half of the random links are asked for, and somewhat more than shall be are granted.
    #[must_use]
    pub fn with(self, class: Class, tunnels: &Tunnels) -> Config {
        if class == Class::Client {
            return self.client();
        }
        let random = usize::from(tunnels.random);
        let gain = usize::from(tunnels.gain);
        Config {
            most: usize::from(tunnels.most).min(MAX_TUNNELS),
            asked: random.div_ceil(2),
            random,
            least: random + 4,
            max_random: random + 2,
            max_needed: 2 * random,
            gain,
            max_chosen: 4 * gain,
            near: tunnels.nearest > 0,
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_numbers_make_the_usual_choice() {
        let usual = Tunnels {
            random: 6,
            nearest: 1,
            gain: 2,
            most: 64,
        };
        assert_eq!(
            Config::default().with(Class::Node, &usual),
            Config::default()
        );
        let few = Tunnels {
            random: 1,
            nearest: 0,
            gain: 0,
            most: 3,
        };
        let few = Config::default().with(Class::Node, &few);
        assert_eq!((few.asked, few.random, few.most), (1, 1, 3));
        assert_eq!((few.near, few.max_chosen), (false, 0));
    }
}
