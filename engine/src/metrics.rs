//! Counters as named samples.
//!
//! Every sample is a counter that only grows; rates and levels are for whoever reads them: what is in flight is what was
//! granted less what was returned. Names are `restyle_<stage>_<noun>_<unit>_total`.

use crate::credit::CreditStats;
use crate::link::LinkStats;
use crate::steal::PoolStats;

/// One counter and its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// `restyle_<stage>_<noun>_<unit>_total`
    pub name: String,
    /// Its value now.
    pub value: u64,
}

/// Something with counters.
pub trait Measured {
    /// Nouns with units, and values.
    fn counters(&self) -> Vec<(&'static str, u64)>;

    /// The counters as samples of `stage`: lower-case letters, digits and `_`.
    fn samples(&self, stage: &str) -> Vec<Sample> {
        let sample = |(noun, value)| Sample { name: format!("restyle_{stage}_{noun}_total"), value };
        self.counters().into_iter().map(sample).collect()
    }
}

impl Measured for CreditStats {
    fn counters(&self) -> Vec<(&'static str, u64)> {
        vec![
            ("granted_credits", self.granted),
            ("returned_credits", self.returned),
            ("credit_stall_micros", self.stall_micros),
        ]
    }
}

impl Measured for LinkStats {
    fn counters(&self) -> Vec<(&'static str, u64)> {
        vec![
            ("sent_messages", self.sent),
            ("received_messages", self.received),
            ("send_stall_micros", self.send_stall_micros),
            ("receive_stall_micros", self.recv_stall_micros),
        ]
    }
}

impl Measured for PoolStats {
    fn counters(&self) -> Vec<(&'static str, u64)> {
        vec![
            ("pushed_items", self.pushed),
            ("leased_items", self.leased),
            ("committed_items", self.committed),
            ("given_back_items", self.given_back),
            ("failed_attempts", self.failed),
            ("revoked_leases", self.revoked),
            ("stolen_batches", self.steals),
            ("poisoned_items", self.poisoned),
            ("parked_micros", self.parked_micros),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_carry_stage_noun_and_unit() {
        let samples = CreditStats { granted: 3, stall_micros: 7, ..CreditStats::default() }.samples("decode");
        assert!(samples.contains(&Sample { name: "restyle_decode_granted_credits_total".into(), value: 3 }));
        assert!(samples.contains(&Sample { name: "restyle_decode_credit_stall_micros_total".into(), value: 7 }));
        let all = [samples, PoolStats::default().samples("score")].concat();
        let legal = |name: &str| name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
        assert!(all.iter().all(|sample| legal(&sample.name)));
    }
}
