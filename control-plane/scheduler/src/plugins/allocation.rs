//! LeastAllocated and BalancedAllocation: rather where much is left, and where CPU and memory are used alike.

use super::SCORE_MAX;
use crate::cache::{NodeId, NodeTable};
use crate::pod_info::PodInfo;

/// Share of `allocatable` left with `requested` taken, 0..=100.
fn left(requested: i64, allocatable: i64) -> i64 {
    if allocatable <= 0 || requested > allocatable {
        return 0;
    }
    (allocatable - requested) * SCORE_MAX / allocatable
}

/// Mean over CPU and memory of the share left, with a little for pods that ask for nothing.
pub(crate) fn least_allocated(nodes: &NodeTable, info: &PodInfo, node: NodeId) -> i64 {
    let row = node.index();
    let cpu = left(
        nodes.compared_cpu[row] + info.compared.0,
        nodes.allocatable_cpu[row],
    );
    let memory = left(
        nodes.compared_memory[row] + info.compared.1,
        nodes.allocatable_memory[row],
    );
    i64::midpoint(cpu, memory)
}

/// How alike the used shares of CPU and memory are: 100 less the standard deviation in percent.
pub(crate) fn balanced(nodes: &NodeTable, info: &PodInfo, node: NodeId) -> i64 {
    let row = node.index();
    // Percent times 100, to keep the deviation's fraction without floating point.
    let share = |requested: i64, allocatable: i64| {
        if allocatable <= 0 {
            10_000
        } else {
            (requested * 100 / (allocatable.max(100) / 100)).min(10_000)
        }
    };
    let cpu = share(
        nodes.requested_cpu[row] + info.requests.cpu_milli,
        nodes.allocatable_cpu[row],
    );
    let memory = share(
        nodes.requested_memory[row] + info.requests.memory,
        nodes.allocatable_memory[row],
    );
    // The standard deviation of two values is half their difference.
    SCORE_MAX - (cpu - memory).abs() / 200
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_a_share() {
        assert_eq!(
            [left(0, 400), left(100, 400), left(400, 400), left(500, 400)],
            [100, 75, 0, 0]
        );
        assert_eq!(left(0, 0), 0);
    }
}
