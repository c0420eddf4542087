//! Rules across fields.

use crate::error::Problem;
use crate::file::Config;

/// Checks a configuration as a whole.
pub fn check(_config: &Config) -> Vec<Problem> {
    Vec::new()
}
