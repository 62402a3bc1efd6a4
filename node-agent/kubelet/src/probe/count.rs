//! When a row of results becomes a verdict. Pure.

/// One run of a probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Sample {
    Success,
    Failure(String),
    /// The probe could not be run: says nothing about the container.
    Unknown(String),
}

/// Equal results in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Count {
    success_threshold: u32,
    failure_threshold: u32,
    last: Option<bool>,
    row: u32,
}

impl Count {
    pub(super) fn new(success_threshold: u32, failure_threshold: u32) -> Self {
        Self {
            success_threshold: success_threshold.max(1),
            failure_threshold: failure_threshold.max(1),
            last: None,
            row: 0,
        }
    }

    /// Takes one result; answers the verdict once enough equal ones came in a row.
    pub(super) fn take(&mut self, sample: &Sample) -> Option<bool> {
        let success = match sample {
            Sample::Success => true,
            Sample::Failure(_) => false,
            Sample::Unknown(_) => return None,
        };
        self.row = if self.last == Some(success) {
            self.row.saturating_add(1)
        } else {
            1
        };
        self.last = Some(success);
        let needed = if success {
            self.success_threshold
        } else {
            self.failure_threshold
        };
        (self.row >= needed).then_some(success)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_counts_after_enough_equal_ones_in_a_row() {
        let mut count = Count::new(2, 3);
        let fail = || Sample::Failure(String::new());
        let unknown = || Sample::Unknown(String::new());
        let samples = [
            (Sample::Success, None),
            (Sample::Success, Some(true)),
            (fail(), None),
            (fail(), None),
            (Sample::Success, None),
            (fail(), None),
            (unknown(), None),
            (fail(), None),
            (fail(), Some(false)),
            (fail(), Some(false)),
            (Sample::Success, None),
            (Sample::Success, Some(true)),
        ];
        for (index, (sample, verdict)) in samples.iter().enumerate() {
            assert_eq!(count.take(sample), *verdict, "sample {index}");
        }
    }
}
