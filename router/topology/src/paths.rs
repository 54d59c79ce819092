//! Shortest paths over the interior routers' records: Dijkstra, with every first link of equal cost kept.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use crate::database::Database;
use crate::model::{Body, LinkId, Neighbour, RouterId};

/// How a router is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reach {
    /// What the whole way costs.
    pub cost: u32,
    /// The links that a shortest way begins with.
    pub links: Vec<LinkId>,
}

/// Router → how it is reached.
pub(crate) type Paths = HashMap<RouterId, Reach>;

/// No way that is longer than this counts; sums stay far from overflow.
const FARTHEST: u32 = u32::MAX / 2;

struct Graph<'a> {
    names: Vec<&'a RouterId>,
    neighbours: Vec<&'a [Neighbour]>,
    index: HashMap<&'a str, usize>,
}

impl<'a> Graph<'a> {
    fn of(base: &'a Database) -> Self {
        let mut graph = Self {
            names: Vec::new(),
            neighbours: Vec::new(),
            index: HashMap::new(),
        };
        for (router, core) in base.cores() {
            if let Body::Router { neighbours, .. } = &core.body {
                graph.index.insert(router, graph.names.len());
                graph.names.push(router);
                graph.neighbours.push(neighbours);
            }
        }
        graph
    }

    /// Whether `from` says that it has a link to `to`; neighbours are sorted by name.
    fn says(&self, from: usize, to: &str) -> bool {
        self.neighbours[from]
            .binary_search_by(|peer| (*peer.router).cmp(to))
            .is_ok()
    }
}

/// The shortest paths from `own`, whose interior links are `links`. A link counts once both ends say that it is there.
pub(crate) fn shortest(own: &RouterId, links: &[(RouterId, u32, LinkId)], base: &Database) -> Paths {
    let graph = Graph::of(base);
    let mut cost = vec![u32::MAX; graph.names.len()];
    let mut first: Vec<Vec<LinkId>> = vec![Vec::new(); graph.names.len()];
    let mut done = vec![false; graph.names.len()];
    let mut heap = BinaryHeap::new();
    let mut relax =
        |heap: &mut BinaryHeap<_>, to: usize, total: u32, by: &[LinkId], first: &mut Vec<Vec<LinkId>>| {
            if total > FARTHEST || total > cost[to] {
                return;
            }
            if total < cost[to] {
                cost[to] = total;
                first[to].clear();
                heap.push(Reverse((total, to)));
            }
            for link in by {
                if !first[to].contains(link) {
                    first[to].push(*link);
                }
            }
        };
    for (router, price, link) in links {
        if let Some(&to) = graph.index.get(&**router)
            && router != own
            && graph.says(to, own)
        {
            relax(&mut heap, to, (*price).max(1), &[*link], &mut first);
        }
    }
    let mut paths = Paths::with_capacity(graph.names.len());
    while let Some(Reverse((total, from))) = heap.pop() {
        if std::mem::replace(&mut done[from], true) {
            continue;
        }
        let by = std::mem::take(&mut first[from]);
        for peer in graph.neighbours[from] {
            if let Some(&to) = graph.index.get(&*peer.router)
                && !done[to]
                && *peer.router != **own
                && graph.says(to, graph.names[from])
            {
                let total = total.saturating_add(peer.cost.max(1));
                relax(&mut heap, to, total, &by, &mut first);
            }
        }
        let mut links = by;
        links.sort_unstable();
        paths.insert(graph.names[from].clone(), Reach { cost: total, links });
    }
    paths
}
