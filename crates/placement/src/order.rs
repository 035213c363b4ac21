//! Orders: for all pods that ask for the same room, the cells of each spot that have it, the best first.
//!
//! Whether there is room, and how well the pod would use it, is asked of each cell once, whatever else
//! pods want: templates with other selectors and tolerations share an order. It is kept between placements
//! and catches up with the cells that changed meanwhile, some two for each pod placed.

use std::cmp::Reverse;

use crate::{
    cell::{Cell, CellId},
    cluster::Cluster,
    few::Few,
    filter::has_room,
    log::Log,
    node::NodeIndex,
    pod::{HostPort, PodView},
    resources::Resources,
    score,
    spot::SpotId,
};

/// Orders kept, the least recently used given up first.
const MAX_ORDERS: usize = 64;
/// Cells that all orders may list together: some 60 bytes each.
const MAX_ORDERED_CELLS: usize = 4_000_000;

/// A cell's rank within its spot, best first: the highest score, then the fewest pods, then the
/// first node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rank {
    pub(crate) local: Reverse<i16>,
    pub(crate) pods: u32,
    pub(crate) first: NodeIndex,
    pub(crate) cell: CellId,
}

impl Rank {
    /// The rank of a cell; `None` when it has no room for the pod.
    pub(crate) fn of(id: CellId, cell: &Cell, pod: &PodView) -> Option<Self> {
        let first = cell.nodes.first()?;
        has_room(pod, &cell.offer, &cell.load).then(|| Self {
            local: Reverse(score::local(pod, cell) as i16),
            pods: u32::try_from(cell.load.pods).unwrap_or(0),
            first,
            cell: id,
        })
    }

    /// How good a node of the cell is: less is better.
    pub(crate) fn with(self, node: NodeIndex) -> (Reverse<i16>, u32, NodeIndex) {
        (self.local, self.pods, node)
    }
}

/// What an order is for.
#[derive(Debug, PartialEq, Eq)]
struct Ask {
    requests: Resources,
    weight: Resources,
    host_ports: Vec<HostPort>,
}

/// The cells with room of a spot that once had this serial.
#[derive(Debug, Default)]
struct Ranks {
    serial: u32,
    ranks: Few<Rank>,
}

/// The order for one ask.
#[derive(Debug)]
pub(crate) struct Order {
    ask: Ask,
    /// Tells an order that was made anew from what it was before.
    serial: u64,
    /// How many changes of cells it knows of; `None` before it was built.
    seen: Option<u64>,
    /// Cells looked at without it.
    spent: usize,
    spots: Vec<Ranks>,
    cells: Vec<Option<(SpotId, Rank)>>,
    /// The spots whose best cell is another, or which are others.
    log: Log<SpotId>,
}

/// The orders that are kept, the most recently used last.
#[derive(Debug, Default)]
pub(crate) struct Orders {
    #[expect(clippy::vec_box, reason = "each placement moves one to the end")]
    kept: Vec<Box<Order>>,
    serial: u64,
}

impl Orders {
    /// Takes out the order for the pod, up to date. [`Orders::keep`] brings it back.
    pub(crate) fn take(&mut self, pod: &PodView, cluster: &Cluster) -> Box<Order> {
        let mut order = self.take_stale(pod);
        self.update(&mut order, pod, cluster);
        order
    }

    /// The same, if bringing it up to date costs no more than what was spent without it, and this
    /// time would be: the look at so many cells.
    pub(crate) fn take_if_cheap(
        &mut self,
        pod: &PodView,
        cells: usize,
        cluster: &Cluster,
    ) -> Option<Box<Order>> {
        let mut order = self.take_stale(pod);
        let behind = order.seen.map(|seen| cluster.cells.log.changes() - seen);
        let cost = behind.map_or(cluster.cells.len(), |behind| behind as usize);
        order.spent += cells;
        if cost > order.spent {
            self.keep(order);
            return None;
        }
        self.update(&mut order, pod, cluster);
        Some(order)
    }

    /// Keeps an order for the next pod that asks for the same.
    pub(crate) fn keep(&mut self, order: Box<Order>) {
        self.kept.push(order);
        let cells = |all: &[Box<Order>]| all.iter().map(|one| one.cells.len()).sum::<usize>();
        while self.kept.len() > MAX_ORDERS
            || (self.kept.len() > 1 && cells(&self.kept) > MAX_ORDERED_CELLS)
        {
            self.kept.remove(0);
        }
    }

    fn take_stale(&mut self, pod: &PodView) -> Box<Order> {
        match self.kept.iter().rposition(|order| order.ask.is_of(pod)) {
            Some(at) => self.kept.remove(at),
            None => Box::new(Order::new(pod)),
        }
    }

    fn update(&mut self, order: &mut Order, pod: &PodView, cluster: &Cluster) {
        order.spent = 0;
        if order.catch_up(pod, cluster).is_none() {
            self.serial += 1;
            order.serial = self.serial;
            order.build(pod, cluster);
        }
    }
}

impl Ask {
    fn is_of(&self, pod: &PodView) -> bool {
        self.requests == pod.requests
            && self.weight == pod.weight
            && self.host_ports == pod.host_ports
    }
}

impl Order {
    fn new(pod: &PodView) -> Self {
        let (requests, weight) = (pod.requests.clone(), pod.weight.clone());
        Self {
            ask: Ask { requests, weight, host_ports: pod.host_ports.clone() },
            serial: 0,
            seen: None,
            spent: 0,
            spots: Vec::new(),
            cells: Vec::new(),
            log: Log::default(),
        }
    }

    pub(crate) fn serial(&self) -> u64 {
        self.serial
    }

    /// The cells of a spot that have room, the best first.
    pub(crate) fn ranks(&self, spot: SpotId) -> impl Iterator<Item = Rank> {
        self.spots.get(spot.0 as usize).into_iter().flat_map(|spot| spot.ranks.iter())
    }

    /// A cell's rank; `None` when it has no room.
    pub(crate) fn rank(&self, cell: CellId) -> Option<Rank> {
        let entry = self.cells.get(cell.0 as usize)?;
        entry.map(|(_, rank)| rank)
    }

    /// A spot's best cell; `None` when none has room.
    pub(crate) fn best(&self, spot: SpotId) -> Option<Rank> {
        self.spots.get(spot.0 as usize)?.ranks.first()
    }

    /// The spots that may have room: all others have none.
    pub(crate) fn spots(&self) -> impl Iterator<Item = SpotId> {
        let all = (0..).map(SpotId).zip(&self.spots);
        all.filter(|(_, spot)| !spot.ranks.is_empty()).map(|(id, _)| id)
    }

    /// Tells which spots' best cells changed.
    pub(crate) fn log(&self) -> &Log<SpotId> {
        &self.log
    }

    fn build(&mut self, pod: &PodView, cluster: &Cluster) {
        self.spots.clear();
        self.cells.clear();
        self.log = Log::default();
        self.seen = Some(cluster.cells.log.changes());
        for (cell, _) in cluster.cells.iter() {
            self.refresh(cell, pod, cluster);
        }
    }

    fn catch_up(&mut self, pod: &PodView, cluster: &Cluster) -> Option<()> {
        // A cell that many pods went to changed as often, and is looked at once.
        let mut changed: Vec<_> = cluster.cells.log.since(self.seen?)?.collect();
        changed.sort_unstable();
        changed.dedup();
        for cell in changed {
            self.refresh(cell, pod, cluster);
        }
        self.seen = Some(cluster.cells.log.changes());
        Some(())
    }

    fn refresh(&mut self, id: CellId, pod: &PodView, cluster: &Cluster) {
        let now = cluster.cells.get(id).and_then(|cell| {
            let serial = cluster.spots.get(cell.spot)?.serial;
            Some((cell.spot, serial, Rank::of(id, cell, pod)?))
        });
        let at = id.0 as usize;
        if at >= self.cells.len() {
            self.cells.resize(at + 1, None);
        }
        let entry = now.map(|(spot, _, rank)| (spot, rank));
        let Some(slot) = self.cells.get_mut(at) else { return };
        let before = std::mem::replace(slot, entry);
        if before == entry && now.is_none_or(|(spot, serial, _)| self.knows(spot, serial)) {
            return;
        }
        if let Some((spot, rank)) = before
            && let Some(ranks) = self.spots.get_mut(spot.0 as usize)
        {
            if ranks.ranks.first() == Some(rank) {
                self.log.push(spot);
            }
            ranks.ranks.remove(&rank);
        }
        if let Some((spot, serial, rank)) = now {
            let at = spot.0 as usize;
            if at >= self.spots.len() {
                self.spots.resize_with(at + 1, Ranks::default);
            }
            let Some(ranks) = self.spots.get_mut(at) else { return };
            ranks.ranks.insert(rank);
            if ranks.serial != serial || ranks.ranks.first() == Some(rank) {
                ranks.serial = serial;
                self.log.push(spot);
            }
        }
    }
    fn knows(&self, spot: SpotId, serial: u32) -> bool {
        self.spots.get(spot.0 as usize).is_some_and(|ranks| ranks.serial == serial)
    }
}
