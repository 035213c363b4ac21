//! How long a pod is to tolerate that its node is silent. Pure.

use crate::autonomy::{Autonomy, NOT_READY, UNREACHABLE};

/// A toleration without an end, as the annotation spells it.
const INFINITE: &str = "infinite";

/// What a silent node is tainted with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Silence {
    NotReady,
    Unreachable,
}

impl Silence {
    pub(super) const ALL: [Self; 2] = [Self::NotReady, Self::Unreachable];

    pub(super) fn taint(self) -> &'static str {
        match self {
            Self::NotReady => NOT_READY,
            Self::Unreachable => UNREACHABLE,
        }
    }
}

/// For how long each of a pod's tolerations of one taint holds, in their order, and what its author had written:
/// that is kept in an annotation as long as it is not what holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tolerated {
    /// Of a toleration without an end there are none.
    pub(super) seconds: Vec<Option<i64>>,
    pub(super) originals: Option<String>,
}

impl Tolerated {
    /// What it should be on a node of this autonomy: what the author wrote, lengthened where it is shorter.
    ///
    /// Of an annotation that cannot be read nothing is put back: what holds now counts as the author's.
    pub(super) fn on(&self, autonomy: Autonomy) -> Self {
        let written = self.written();
        let seconds: Vec<_> = written.iter().map(|own| lengthened(*own, autonomy)).collect();
        let originals = (seconds != written).then(|| text(&written));
        Self { seconds, originals }
    }

    /// What the author wrote. Tolerations that were added later are as they are.
    fn written(&self) -> Vec<Option<i64>> {
        let kept = self.originals.as_deref().map(|text| text.split(',').map(parse));
        let mut kept = kept.into_iter().flatten();
        let own = |held: &Option<i64>| kept.next().flatten().unwrap_or(*held);
        self.seconds.iter().map(own).collect()
    }
}

fn lengthened(own: Option<i64>, autonomy: Autonomy) -> Option<i64> {
    let own = own?;
    match autonomy {
        Autonomy::None => Some(own),
        Autonomy::ForEver => None,
        Autonomy::For(duration) => {
            let begun = i64::from(duration.subsec_nanos() > 0);
            Some(own.max(duration.as_secs().saturating_add(begun)))
        }
    }
}

/// One entry of the annotation.
fn parse(text: &str) -> Option<Option<i64>> {
    if text == INFINITE { Some(None) } else { text.parse().ok().map(Some) }
}

fn text(written: &[Option<i64>]) -> String {
    let entry =
        |own: &Option<i64>| own.map_or_else(|| INFINITE.to_owned(), |seconds| seconds.to_string());
    written.iter().map(entry).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;
    use proptest::prelude::*;

    use super::*;

    /// Seconds and what is kept.
    type Held<'a> = (&'a [Option<i64>], Option<&'a str>);

    fn tolerated(seconds: &[Option<i64>], originals: Option<&str>) -> Tolerated {
        Tolerated { seconds: seconds.to_vec(), originals: originals.map(str::to_owned) }
    }

    fn hours(count: i64) -> Autonomy {
        Autonomy::For(SignedDuration::from_hours(count))
    }

    #[test]
    fn tolerations_follow_the_node() {
        let cases: &[(Held<'_>, Autonomy, Held<'_>)] = &[
            // Bound for the first time.
            ((&[Some(300)], None), hours(1), (&[Some(3600)], Some("300"))),
            ((&[Some(300)], None), Autonomy::ForEver, (&[None], Some("300"))),
            // The duration changed, then went.
            ((&[Some(3600)], Some("300")), hours(2), (&[Some(7200)], Some("300"))),
            ((&[None], Some("300")), hours(2), (&[Some(7200)], Some("300"))),
            ((&[None], Some("300")), Autonomy::None, (&[Some(300)], None)),
            // The author wanted more than the node gives, or had no end in mind.
            ((&[Some(7200)], None), hours(1), (&[Some(7200)], None)),
            ((&[Some(7200)], Some("7200")), hours(1), (&[Some(7200)], None)),
            ((&[None], None), hours(1), (&[None], None)),
            ((&[None], None), Autonomy::None, (&[None], None)),
            // No toleration, nothing to change.
            ((&[], None), Autonomy::ForEver, (&[], None)),
            // Several for one taint, one of them added later.
            (
                (&[Some(3600), Some(9000), Some(60)], Some("300,9000")),
                hours(1),
                (&[Some(3600), Some(9000), Some(3600)], Some("300,9000,60")),
            ),
            // What OpenYurt wrote: it shortens, and remembers that there was no end.
            ((&[Some(3600)], Some("infinite")), Autonomy::None, (&[None], None)),
            ((&[Some(3600)], Some("infinite")), hours(1), (&[None], None)),
            // Nonsense is not put back.
            ((&[Some(3600)], Some("soon")), Autonomy::None, (&[Some(3600)], None)),
            ((&[Some(300)], Some("")), hours(1), (&[Some(3600)], Some("300"))),
        ];
        for &((seconds, originals), autonomy, (wanted, kept)) in cases {
            let found = tolerated(seconds, originals).on(autonomy);
            assert_eq!(found, tolerated(wanted, kept), "{seconds:?} {originals:?} {autonomy:?}");
        }
    }

    #[test]
    fn a_begun_second_counts() {
        let autonomy = Autonomy::For(SignedDuration::from_millis(500));
        assert_eq!(tolerated(&[Some(0)], None).on(autonomy), tolerated(&[Some(1)], Some("0")));
    }

    fn autonomies() -> impl Strategy<Value = Autonomy> {
        prop_oneof![
            Just(Autonomy::None),
            Just(Autonomy::ForEver),
            (1_i64..100_000).prop_map(|seconds| Autonomy::For(SignedDuration::from_secs(seconds))),
        ]
    }

    proptest! {
        /// Whatever nodes a pod's node was, in the end it is as its author wrote it, and never tolerates less.
        #[test]
        fn what_the_author_wrote_comes_back(
            written in prop::collection::vec(prop::option::of(0_i64..100_000), 0..4),
            through in prop::collection::vec(autonomies(), 0..6),
        ) {
            let own = tolerated(&written, None);
            let mut now = own.clone();
            for autonomy in through {
                now = now.on(autonomy);
                prop_assert_eq!(&now.on(autonomy), &now, "nothing is left to do");
                let least = |(now, own): (&Option<i64>, &Option<i64>)| {
                    now.is_none_or(|now| own.is_some_and(|own| now >= own))
                };
                prop_assert!(now.seconds.iter().zip(&own.seconds).all(least));
            }
            prop_assert_eq!(now.on(Autonomy::None), own);
        }
    }
}
