//! When what is to be done: pure arithmetic on the number of the step.

use crate::params::TrainLora;

/// What a training does after which steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Agenda {
    /// Steps in all.
    pub steps: u64,
    /// Samples that one step looks at.
    pub per_step: u64,
    /// Samples of an epoch.
    pub samples: u64,
    validate: u64,
    save: u64,
    sample: u64,
}

impl Agenda {
    /// For a set of so many samples, repeats included.
    pub fn new(params: &TrainLora, samples: u64) -> Self {
        let per_step = u64::from(params.batch_size) * u64::from(params.gradient_accumulation);
        let all = (samples * u64::from(params.num_epochs)).div_ceil(per_step).max(1);
        let steps = if params.max_steps == 0 { all } else { all.min(params.max_steps) };
        Self {
            steps,
            per_step,
            samples: samples.max(1),
            validate: params.val_every,
            save: params.save_every,
            sample: params.sample_every,
        }
    }

    /// Whether validation is due after this step.
    pub fn validates(&self, step: u64) -> bool {
        self.due(step, self.validate)
    }

    /// Whether a checkpoint is due after this step.
    pub fn saves(&self, step: u64) -> bool {
        self.due(step, self.save)
    }

    /// Whether samples are due after this step.
    pub fn samples(&self, step: u64) -> bool {
        self.due(step, self.sample)
    }

    /// Epochs that are done after this step, with the part of the one in work.
    pub fn epochs(&self, step: u64) -> f64 {
        (step * self.per_step) as f64 / self.samples as f64
    }

    fn due(&self, step: u64, every: u64) -> bool {
        let epoch = |step: u64| step * self.per_step / self.samples;
        let due = match every {
            0 => step > 0 && epoch(step) > epoch(step - 1),
            n => step.is_multiple_of(n),
        };
        step > 0 && (due || step == self.steps)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agenda(change: impl FnOnce(&mut TrainLora), samples: u64) -> Agenda {
        let mut params =
            TrainLora { batch_size: 2, gradient_accumulation: 2, num_epochs: 3, ..TrainLora::default() };
        change(&mut params);
        Agenda::new(&params, samples)
    }

    #[test]
    fn each_image_is_seen_as_often_as_there_are_epochs() {
        assert_eq!(agenda(|_| (), 8).steps, 6);
        assert_eq!(agenda(|_| (), 9).steps, 7, "27 samples in steps of 4");
        assert_eq!(agenda(|p| p.max_steps = 5, 9).steps, 5);
        assert_eq!(agenda(|p| p.num_epochs = 1, 1).steps, 1);
    }

    #[test]
    fn without_a_number_things_are_done_after_each_epoch_and_at_the_end() {
        let a = agenda(|_| (), 10);
        let due: Vec<u64> = (0..=a.steps).filter(|s| a.validates(*s)).collect();
        assert_eq!(a.steps, 8);
        assert_eq!(due, [3, 5, 8]);
    }

    #[test]
    fn with_a_number_things_are_done_after_so_many_steps_and_at_the_end() {
        let a = agenda(|p| p.save_every = 3, 10);
        let due: Vec<u64> = (0..=a.steps).filter(|s| a.saves(*s)).collect();
        assert_eq!(due, [3, 6, 8]);
    }
}
