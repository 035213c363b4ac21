//! In which order nodes are asked to lead. Pure, but for chance.

/// Those that lead and still can, and then the others at random: one that leads is only replaced when it cannot.
pub(super) fn order<'a>(able: &[&'a str], leading: &[&str]) -> Vec<&'a str> {
    let (mut order, mut others): (Vec<_>, Vec<_>) =
        able.iter().copied().partition(|name| leading.contains(name));
    order.sort_unstable();
    fastrand::shuffle(&mut others);
    order.append(&mut others);
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_leads_stays_and_others_come_by_chance() {
        let able = ["a", "b", "c", "d"];
        let order = order(&able, &["d", "gone", "b"]);
        assert_eq!(order.get(..2), Some(&["b", "d"][..]));
        assert_eq!(order.len(), 4);
        let firsts: std::collections::HashSet<_> =
            (0..200).filter_map(|_| super::order(&able, &[]).first().copied()).collect();
        assert_eq!(firsts.len(), 4, "each may be the first");
    }
}
