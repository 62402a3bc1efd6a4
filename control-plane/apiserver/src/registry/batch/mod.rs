//! Job and CronJob: pods that are to end, once or again and again.

mod cron_job;
mod job;
mod policy;
mod schedule;
mod status;
mod table;

pub(super) use self::cron_job::CronJob;
pub(super) use self::job::Job;
pub(super) use self::table::{CRON_JOB_TABLE, JOB_TABLE};

#[cfg(test)]
mod tests;
