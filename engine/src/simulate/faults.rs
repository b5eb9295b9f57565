//! What may go wrong in a run, drawn from its seed.

use crate::random::Random;

/// The circumstances of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// Two processes on one job and no lock between them, as on an object store.
    pub is_shared: bool,
    /// Whether the store has logs that grow in place.
    pub has_logs: bool,
    /// Whether items are packed.
    pub has_packs: bool,
    /// Whether the store cuts and flips, so that what was durable may be lost.
    pub is_corrupting: bool,
    /// Script of the faulty store of each process.
    pub store_script: String,
    /// Scorers of a process.
    pub workers: usize,
    /// Largest batch.
    pub batch_items_max: usize,
    /// Items in flight.
    pub credits: usize,
    /// Segments open at once.
    pub segments_open_max: usize,
    /// Position in the stream of an item that cannot be scored.
    pub poison: Option<usize>,
    /// Position in the stream of an item that kills its process.
    pub lethal: Option<usize>,
    /// Faults before nothing more goes wrong.
    pub faults_max: u64,
    /// How often a turn brings a fault, in a thousand.
    pub fault_odds: u64,
}

/// Something that goes wrong at a moment the seed decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// The process dies here.
    Kill,
    /// The process dies at one of its next store calls.
    KillAtCall,
    /// Every process dies, and the disk loses what it may.
    LosePower,
    /// The process is asked to leave.
    Drain,
    /// A scorer panics.
    Panic,
    /// A scorer stops answering.
    Hang,
    /// A scorer is taken away.
    Preempt,
    /// Decoder or encoder fails: the pass ends.
    BreakPass,
}

const FAULTS: [Fault; 8] = [
    Fault::Kill,
    Fault::KillAtCall,
    Fault::LosePower,
    Fault::Drain,
    Fault::Panic,
    Fault::Hang,
    Fault::Preempt,
    Fault::BreakPass,
];

impl Profile {
    pub(super) fn of(random: &mut Random, items: usize) -> Profile {
        let is_corrupting = random.happens(250);
        let place = |random: &mut Random, odds| random.happens(odds).then(|| random.below(items as u64) as usize);
        Profile {
            is_shared: random.happens(250),
            has_logs: random.happens(700),
            has_packs: random.happens(700),
            is_corrupting,
            store_script: store_script(random, is_corrupting),
            workers: 1 + random.below(3) as usize,
            batch_items_max: 1 + random.below(3) as usize,
            credits: 1 + random.below(6) as usize,
            segments_open_max: 1 + random.below(3) as usize,
            poison: place(random, 80),
            lethal: place(random, 80),
            faults_max: random.below(14),
            fault_odds: 5 + random.below(60),
        }
    }
}

impl Fault {
    pub(super) fn of(random: &mut Random) -> Fault {
        FAULTS[random.below(FAULTS.len() as u64) as usize]
    }
}

fn store_script(random: &mut Random, is_corrupting: bool) -> String {
    let mut rules: Vec<String> = Vec::new();
    let mut rule = |random: &mut Random, odds, text: String| {
        if random.happens(odds) {
            rules.push(text);
        }
    };
    for _ in 0..2 {
        let call = 1 + random.below(40);
        rule(random, 300, format!("create@{call}=before(503)"));
        let call = 1 + random.below(40);
        rule(random, 300, format!("create@{call}=after(timeout)"));
        let call = 1 + random.below(40);
        rule(random, 200, format!("append@{call}=before(full)"));
        let call = 1 + random.below(40);
        rule(random, 200, format!("append@{call}=after(timeout)"));
        let first = 1 + random.below(60);
        rule(random, 200, format!("create@{first}-{}=before(full)", first + 4));
        let first = 1 + random.below(60);
        rule(random, 100, format!("get@{first}-{}=before(429)", first + 12));
    }
    if is_corrupting {
        let bit = random.bits() % 100_000;
        rule(random, 500, format!("get@%10=flip({bit})"));
        rule(random, 300, "get@%10=truncate(-1)".to_owned());
        rule(random, 500, format!("create@%20=flip({bit})"));
        rule(random, 300, format!("create:seg@%50=truncate({})", random_cut(bit)));
        rule(random, 300, format!("append@%20=flip({bit})"));
        rule(random, 300, "append@%20=truncate(1)".to_owned());
    }
    rules.join(";")
}

/// Nothing, something from the front, or all but something.
fn random_cut(bit: u64) -> i64 {
    [0, 1, 60, -1, -30][(bit % 5) as usize]
}
