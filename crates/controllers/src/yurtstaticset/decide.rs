//! What to do on each node of a set, without any object.

/// How pods are replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Strategy {
    /// So many at once, on nodes that are ready.
    Advanced { at_once: usize },
    /// When somebody approves.
    Ota,
}

/// One node's pod.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Spot {
    /// It is of the newest revision.
    pub(super) current: bool,
    pub(super) ready: bool,
    pub(super) node_ready: bool,
    /// It was approved by us and is not settled yet.
    pub(super) under_way: bool,
    /// It shows what people are to see: of an old pod the offer, of a current one that there is none.
    pub(super) told: bool,
    /// Some offer is on it.
    pub(super) noted: bool,
    /// The newest revision is offered to it and approved.
    pub(super) approved: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Act {
    Nothing,
    Offer,
    Approve,
    Withdraw,
}

/// What to do; `absent` nodes are under way and show no pod now.
pub(super) fn acts(spots: &[Spot], strategy: Strategy, absent: usize) -> Vec<Act> {
    match strategy {
        Strategy::Ota => spots.iter().map(ota).collect(),
        Strategy::Advanced { at_once } => advanced(spots, at_once, absent),
    }
}

fn ota(spot: &Spot) -> Act {
    match spot {
        Spot { told: true, .. } => Act::Nothing,
        Spot { current: true, .. } => Act::Withdraw,
        Spot { .. } => Act::Offer,
    }
}

/// Nodes that are not ready take none of the room. Pods that serve nobody are replaced within it too, and first.
fn advanced(spots: &[Spot], at_once: usize, absent: usize) -> Vec<Act> {
    let busy = |spot: &&Spot| {
        spot.node_ready && (spot.under_way || spot.approved || spot.current && !spot.ready)
    };
    let mut room = at_once.saturating_sub(absent + spots.iter().filter(busy).count());
    let mut acts: Vec<Act> = spots
        .iter()
        .map(|spot| if spot.current && spot.noted { Act::Withdraw } else { Act::Nothing })
        .collect();
    for broken in [true, false] {
        for (spot, act) in spots.iter().zip(&mut acts) {
            let waits = !spot.current && spot.node_ready && !spot.under_way && !spot.approved;
            if waits && spot.ready != broken && room > 0 {
                *act = Act::Approve;
                room -= 1;
            }
        }
    }
    acts
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::{Act, Spot, Strategy as How, acts};

    const OLD: Spot = Spot {
        current: false,
        ready: true,
        node_ready: true,
        under_way: false,
        told: false,
        noted: false,
        approved: false,
    };
    const NEW: Spot = Spot { current: true, ..OLD };
    const AWAY: Spot = Spot { node_ready: false, ..OLD };
    const UNDER_WAY: Spot = Spot { under_way: true, approved: true, ..OLD };

    #[test]
    fn a_set_is_replaced_some_nodes_at_a_time_and_goes_around_those_that_are_away() {
        use Act::{Approve, Nothing, Withdraw};
        let one = |spots: &[Spot], absent| acts(spots, How::Advanced { at_once: 1 }, absent);
        assert_eq!(one(&[OLD, OLD], 0), [Approve, Nothing]);
        assert_eq!(one(&[UNDER_WAY, OLD], 0), [Nothing, Nothing]);
        assert_eq!(one(&[OLD], 1), [Nothing], "one is on its way and shows no pod");
        assert_eq!(one(&[NEW, AWAY, OLD], 0), [Nothing, Nothing, Approve]);
        assert_eq!(one(&[Spot { ready: false, ..NEW }, OLD], 0), [Nothing, Nothing]);
        assert_eq!(one(&[OLD, Spot { ready: false, ..OLD }], 0), [Nothing, Approve]);
        assert_eq!(one(&[Spot { noted: true, ..NEW }], 0), [Withdraw]);
    }

    #[test]
    fn with_ota_each_is_told_once_and_nothing_is_approved() {
        let told = |spot: Spot| Spot { told: true, ..spot };
        let made = acts(&[OLD, told(OLD), NEW, told(NEW), AWAY], How::Ota, 0);
        use Act::{Nothing, Offer, Withdraw};
        assert_eq!(made, [Offer, Nothing, Withdraw, Nothing, Offer]);
    }

    fn any_spot() -> impl Strategy<Value = Spot> {
        any::<[bool; 7]>().prop_map(
            |[current, ready, node_ready, under_way, told, noted, approved]| Spot {
                current,
                ready,
                node_ready,
                under_way,
                told,
                noted,
                approved,
            },
        )
    }

    proptest! {
        #[test]
        fn never_more_at_once_than_may_be(
            spots in vec(any_spot(), 0..20), at_once in 1_usize..6, absent in 0_usize..4,
        ) {
            let made = acts(&spots, How::Advanced { at_once }, absent);
            let begun = made.iter().filter(|act| **act == Act::Approve).count();
            let busy = spots.iter().filter(|spot| spot.node_ready && spot.under_way).count();
            prop_assert!(begun == 0 || begun + busy + absent <= at_once);
            for (spot, act) in spots.iter().zip(made) {
                prop_assert!(act != Act::Approve || (spot.node_ready && !spot.current));
            }
        }
    }
}
