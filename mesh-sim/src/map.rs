//! A synthetic internet: nodes in real cities, and round trips between them.
//!
//! A round trip is both ends' access delay and the great circle at the speed of light in fibre (100 km a millisecond, both ways), times how much longer cables and routing
//! make it. That factor is drawn for each country, each pair of them, and each pair of cities, so that a way by a third node is often shorter, as it is in reality.

use std::{collections::BTreeMap, time::Duration};

use hextet_mesh::topology::Reach;

use crate::chance::{Chance, chance_of};

/// Where a node can be.
#[derive(Clone, Debug)]
pub struct City {
    /// Its country, as ISO 3166 writes it.
    pub country: String,
    /// Degrees.
    pub latitude: f64,
    /// Degrees.
    pub longitude: f64,
    /// Inhabitants.
    pub thousands: f64,
    /// What it is called.
    pub name: String,
}

/// How much longer than the great circle ways are: the median, and the deviation of the logarithm by pairs of countries.
const INFLATION: (f64, f64) = (1.75, 0.10);

/// The deviation that each country brings, and each pair of cities.
const OF_COUNTRY: f64 = 0.08;
const OF_CITIES: f64 = 0.06;

/// What access adds to a round trip in milliseconds: the median, and the deviation of the logarithm (so that one in twenty has 30 ms).
const ACCESS: (f64, f64) = (3.0, 1.4);

/// How many more nodes a well connected country's cities have than others with as many inhabitants.
const MORE: f64 = 8.0;

/// Countries whose cities have more nodes than inhabitants alone give, as on measured maps.
const WELL_CONNECTED: &[&str] = &[
    "US", "CA", "GB", "FR", "DE", "NL", "BE", "CH", "AT", "SE", "NO", "DK", "FI", "IT", "ES", "PT",
    "PL", "CZ", "IE", "JP",
];

/// Of the nodes, how many can be reached by whom.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reaches {
    /// Part of all nodes that is public.
    pub public: f64,
    /// Part of all nodes that is behind a closed NAT; the rest can be punched.
    pub closed: f64,
}

/// Everybody is public.
pub const ALL_PUBLIC: Reaches = Reaches {
    public: 1.0,
    closed: 0.0,
};

/// Nodes and the round trips between them, in microseconds.
#[derive(Clone, Debug)]
pub struct Map {
    /// Whom each node can be reached by.
    pub reach: Vec<Reach>,
    /// The city of each.
    pub city: Vec<usize>,
    round_trips: Vec<u32>,
}

/// The cities that nodes are in.
pub fn cities() -> Vec<City> {
    include_str!("cities.txt")
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            Some(City {
                country: words.next().filter(|word| *word != "#")?.to_owned(),
                latitude: words.next()?.parse().ok()?,
                longitude: words.next()?.parse().ok()?,
                thousands: words.next()?.parse().ok()?,
                name: words.next()?.to_owned(),
            })
        })
        .collect()
}

impl Map {
    /// So many nodes, placed by inhabitants.
    pub fn new(nodes: usize, reaches: Reaches, seed: u64) -> Self {
        let cities = cities();
        let mut chance = chance_of(&[seed, 1]);
        let city = placed(nodes, &cities, &mut chance);
        let access: Vec<f64> = (0..nodes)
            .map(|_| chance.lognormal(ACCESS.0, ACCESS.1).clamp(0.3, 150.0))
            .collect();
        let reach = (0..nodes)
            .map(|_| match chance.unit() {
                part if part < reaches.public => Reach::Public,
                part if part < reaches.public + reaches.closed => Reach::Closed,
                _ => Reach::Punchable,
            })
            .collect();
        let between = ways(&cities, seed);
        let mut round_trips = vec![0; nodes * nodes];
        for (one, row) in round_trips.chunks_mut(nodes).enumerate() {
            for (other, slot) in row
                .iter_mut()
                .enumerate()
                .filter(|(other, _)| *other != one)
            {
                let way = between[city[one] * cities.len() + city[other]];
                *slot = ((access[one] + access[other] + way) * 1000.0) as u32;
            }
        }
        Map {
            reach,
            city,
            round_trips,
        }
    }

    /// Nodes.
    pub fn len(&self) -> usize {
        self.city.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.city.is_empty()
    }

    /// From one to the other and back, when nothing is in the way, in microseconds.
    pub fn micros(&self, one: usize, other: usize) -> u32 {
        self.round_trips[one * self.len() + other]
    }

    /// The same.
    pub fn round_trip(&self, one: usize, other: usize) -> Duration {
        Duration::from_micros(self.micros(one, other).into())
    }

    /// Quantiles of all round trips, in milliseconds.
    pub fn quantiles(&self, of: &[f64]) -> Vec<f64> {
        let mut all: Vec<f64> = (0..self.len())
            .flat_map(|one| (0..one).map(move |other| (one, other)))
            .map(|(one, other)| f64::from(self.micros(one, other)) / 1000.0)
            .collect();
        all.sort_by(f64::total_cmp);
        of.iter().map(|part| quantile(&all, *part)).collect()
    }

    /// Of pairs by chance: the part to which some third node is a shorter way, and one by more than a fifth.
    pub fn detours(&self, pairs: usize, chance: &mut Chance) -> (f64, f64) {
        let (mut better, mut much) = (0, 0);
        for _ in 0..pairs {
            let (one, other) = (chance.below(self.len()), chance.below(self.len()));
            let direct = f64::from(self.micros(one, other));
            let least = (0..self.len())
                .filter(|third| *third != one && *third != other)
                .map(|third| {
                    f64::from(self.micros(one, third)) + f64::from(self.micros(third, other))
                })
                .fold(f64::INFINITY, f64::min);
            better += usize::from(least < direct);
            much += usize::from(least < 0.8 * direct);
        }
        let part = |count: usize| count as f64 / pairs.max(1) as f64;
        (part(better), part(much))
    }
}

/// What stands at a part of a sorted list; 0 of an empty one.
pub fn quantile(sorted: &[f64], part: f64) -> f64 {
    let at = (part * sorted.len().saturating_sub(1) as f64) as usize;
    sorted.get(at).copied().unwrap_or(0.0)
}

fn placed(nodes: usize, cities: &[City], chance: &mut Chance) -> Vec<usize> {
    let mut sums = Vec::new();
    let mut total = 0.0;
    for city in cities {
        let well = WELL_CONNECTED.contains(&city.country.as_str());
        total += city.thousands.sqrt() * if well { MORE } else { 1.0 };
        sums.push(total);
    }
    (0..nodes)
        .map(|_| {
            let at = chance.unit() * total;
            sums.partition_point(|sum| *sum < at).min(cities.len() - 1)
        })
        .collect()
}

/// Milliseconds from each city to each and back.
fn ways(cities: &[City], seed: u64) -> Vec<f64> {
    let mut countries: BTreeMap<&str, u64> = BTreeMap::new();
    for city in cities {
        let next = countries.len() as u64;
        countries.entry(&city.country).or_insert(next);
    }
    let number = |city: &City| countries.get(city.country.as_str()).copied().unwrap_or(0);
    let mut ways = Vec::with_capacity(cities.len() * cities.len());
    for (at, one) in cities.iter().enumerate() {
        for (to, other) in cities.iter().enumerate() {
            let (a, b) = (number(one), number(other));
            let pair =
                chance_of(&[seed, 2, a.min(b), a.max(b)]).lognormal(INFLATION.0, INFLATION.1);
            let of = |country: u64| chance_of(&[seed, 7, country]).lognormal(1.0, OF_COUNTRY);
            let (low, high) = (at.min(to) as u64, at.max(to) as u64);
            let local = chance_of(&[seed, 3, low, high]).lognormal(1.0, OF_CITIES);
            let inflation = (pair * local * (of(a) * of(b)).sqrt()).max(1.05);
            ways.push(kilometres(one, other) / 100.0 * inflation);
        }
    }
    ways
}

fn kilometres(one: &City, other: &City) -> f64 {
    const RADIUS: f64 = 6371.0;
    let (lat, other_lat) = (one.latitude.to_radians(), other.latitude.to_radians());
    let (dlat, dlon) = (
        other_lat - lat,
        (other.longitude - one.longitude).to_radians(),
    );
    let half =
        (dlat / 2.0).sin().powi(2) + lat.cos() * other_lat.cos() * (dlon / 2.0).sin().powi(2);
    2.0 * RADIUS * half.sqrt().min(1.0).asin()
}
