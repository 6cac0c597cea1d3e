//! Which item is trained on when.

use super::{Draws, Error, Lane};

/// The order of samples of a run: each epoch has every item as often as it is repeated, in an order of its own.
#[derive(Debug, Clone)]
pub struct Order {
    seed: u64,
    /// The items of one epoch, unshuffled.
    items: Vec<u32>,
    current: Option<(u64, Vec<u32>)>,
}

/// What is trained on at a place of the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pick {
    /// Index of the item.
    pub item: usize,
    /// Epoch, from 0.
    pub epoch: u64,
    /// Place within the epoch, from 0.
    pub position: usize,
}

impl Order {
    /// The order of items of which each comes as many times in an epoch as `repeats` says; 0 leaves one out.
    ///
    /// # Errors
    /// [`Error::Empty`] if nothing is left; [`Error::Setting`] for more samples than 32 bits count.
    pub fn new(seed: u64, repeats: &[u32]) -> Result<Self, Error> {
        let total: u64 = repeats.iter().map(|n| u64::from(*n)).sum();
        if total == 0 {
            return Err(Error::Empty);
        }
        if total.max(repeats.len() as u64) > u64::from(u32::MAX) {
            return Err(Error::Setting { name: "repeats", value: total as f64, must: "fewer in all" });
        }
        let each = |(i, n): (usize, &u32)| std::iter::repeat_n(i as u32, *n as usize);
        Ok(Self { seed, items: repeats.iter().enumerate().flat_map(each).collect(), current: None })
    }

    /// Samples of an epoch.
    #[expect(clippy::len_without_is_empty, reason = "an order has at least one sample")]
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Micro-steps of `epochs` epochs; the last batch of the run, not of each epoch, may be smaller.
    pub fn batches(&self, epochs: u64, batch: usize) -> u64 {
        (self.items.len() as u64 * epochs).div_ceil(batch.max(1) as u64)
    }

    /// What is trained on at a sample counted from the start of the run. Any sample may be asked for; those of the
    /// epoch asked for last cost nothing.
    pub fn at(&mut self, sample: u64) -> Pick {
        let (epoch, position) =
            (sample / self.items.len() as u64, (sample % self.items.len() as u64) as usize);
        let order = match self.current.take() {
            Some((e, order)) if e == epoch => order,
            _ => self.epoch(epoch),
        };
        let item = order[position] as usize;
        self.current = Some((epoch, order));
        Pick { item, epoch, position }
    }

    /// The items of an epoch in their order.
    pub fn epoch(&self, epoch: u64) -> Vec<u32> {
        let mut items = self.items.clone();
        Draws::new(self.seed, epoch, Lane::Order).shuffle(&mut items);
        items
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_epoch_has_every_item_as_often_as_it_is_repeated() {
        let mut order = Order::new(1, &[1, 3, 0, 2]).unwrap();
        assert_eq!(order.len(), 6);
        for epoch in 0..5 {
            let mut items: Vec<usize> = (0..6).map(|i| order.at(epoch * 6 + i).item).collect();
            items.sort_unstable();
            assert_eq!(items, [0, 1, 1, 1, 3, 3]);
        }
    }

    #[test]
    fn epochs_and_seeds_have_orders_of_their_own() {
        let order = |seed| Order::new(seed, &[1; 50]).unwrap();
        assert_ne!(order(1).epoch(0), order(1).epoch(1));
        assert_ne!(order(1).epoch(0), order(2).epoch(0));
        assert_eq!(order(1).epoch(3), order(1).epoch(3));
    }

    #[test]
    fn a_place_has_the_same_item_whatever_was_asked_before() {
        let mut forwards = Order::new(9, &[2; 7]).unwrap();
        let all: Vec<Pick> = (0..60).map(|k| forwards.at(k)).collect();
        assert_eq!(all[30], Pick { epoch: 2, position: 2, item: all[30].item });
        let mut backwards = Order::new(9, &[2; 7]).unwrap();
        (0..60).rev().for_each(|k| assert_eq!(backwards.at(k), all[k as usize]));
    }

    #[test]
    fn every_place_is_equally_likely_for_an_item() {
        let order = Order::new(3, &[1; 5]).unwrap();
        let mut counts = [[0usize; 5]; 5];
        for e in 0..5000 {
            order.epoch(e).iter().enumerate().for_each(|(place, item)| counts[place][*item as usize] += 1);
        }
        assert!(counts.iter().flatten().all(|c| c.abs_diff(1000) < 150), "{counts:?}");
    }

    #[test]
    fn batches_run_on_over_the_ends_of_epochs() {
        let order = Order::new(1, &[1; 10]).unwrap();
        assert_eq!(
            [order.batches(1, 4), order.batches(2, 4), order.batches(0, 4), order.batches(1, 0)],
            [3, 5, 0, 10]
        );
    }

    #[test]
    fn nothing_and_too_much_are_refused() {
        assert_eq!(Order::new(1, &[]).unwrap_err(), Error::Empty);
        assert_eq!(Order::new(1, &[0, 0]).unwrap_err(), Error::Empty);
        assert!(matches!(Order::new(1, &[u32::MAX, 1]), Err(Error::Setting { .. })));
        assert_eq!(Order::new(1, &[1]).unwrap().at(u64::MAX).epoch, u64::MAX);
    }
}
