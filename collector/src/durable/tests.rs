//! The format against cuts and corruption, and the queue over real files.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use karez_collector_config::Signal;
use karez_collector_config::common::Sizer;
use karez_collector_config::extensions::WhenFull;
use proptest::prelude::*;

use super::frame::{self, QueueId};
use super::queue::{DurableQueue, Settings};
use super::record::{self, Item};
use super::recover::{Recovered, Recovery, Verdict};
use super::{FileSettings, OpenError};
use crate::batch::Batch;
use crate::component::Refusal;
use crate::ledger::{Counts, Fate, Ledger, Reason, Settlement};

const ID: QueueId = *b"\x01queue\xfe\x02";

/// A log as it would be written: three segments and a state that knows of some settlements.
struct Log {
    segments: Vec<(u64, Vec<u8>)>,
    /// Where each item's frame ends, by its sequence.
    ends: BTreeMap<u64, (usize, usize)>,
    items: BTreeMap<u64, u32>,
    state: Vec<u8>,
    settled: BTreeSet<u64>,
    accepted: u64,
}

fn log(sizes: &[(u32, usize)], settled: &BTreeSet<u64>) -> Log {
    let mut log = Log {
        segments: Vec::new(),
        ends: BTreeMap::new(),
        items: BTreeMap::new(),
        state: frame::preamble(ID).to_vec(),
        settled: settled
            .iter()
            .copied()
            .filter(|n| (*n as usize) < sizes.len())
            .collect(),
        accepted: 0,
    };
    let per_segment = sizes.len().div_ceil(3).max(1);
    for (sequence, (items, bytes)) in sizes.iter().enumerate() {
        if sequence % per_segment == 0 {
            let mut bytes = frame::preamble(ID).to_vec();
            let head = record::head(sequence as u64, [("traces", log.accepted)].into_iter());
            frame::put(&mut bytes, ID, &head);
            log.segments.push((sequence as u64, bytes));
        }
        let mut body = record::item(&Item {
            sequence: sequence as u64,
            time: 7,
            signal: Signal::Traces,
            items: *items,
            accepted: log.accepted,
            account: "traces",
        });
        body.extend((0..*bytes).map(|n| (n * 31 + sequence) as u8));
        log.accepted += u64::from(*items);
        let index = log.segments.len() - 1;
        frame::put(&mut log.segments[index].1, ID, &body);
        log.ends
            .insert(sequence as u64, (index, log.segments[index].1.len()));
        log.items.insert(sequence as u64, *items);
    }
    let counts = Counts::default();
    let snapshot = record::snapshot(0, [("traces", &counts)].into_iter(), &[]);
    frame::put(&mut log.state, ID, &snapshot);
    for sequence in &log.settled {
        let settlement = Settlement::of(log.items[sequence], Fate::Delivered);
        frame::put(
            &mut log.state,
            ID,
            &record::settled(*sequence, &settlement, "traces"),
        );
    }
    log
}

/// The sequences to deliver, verdicts, and the books.
fn recover(log: &Log) -> (BTreeSet<u64>, Vec<Verdict>, Recovered) {
    let mut recovery = Recovery::new(&log.state, ID);
    let (mut kept, mut verdicts) = (BTreeSet::new(), Vec::new());
    for (index, (first, bytes)) in log.segments.iter().enumerate() {
        let segment = recovery.segment(*first, bytes, index + 1 == log.segments.len());
        kept.extend(segment.kept.iter().map(|kept| kept.sequence));
        verdicts.push(segment.verdict);
    }
    let recovered = recovery.finish();
    assert!(recovered.accounts.values().all(Counts::balances), "{recovered:?}");
    (kept, verdicts, recovered)
}

fn unsettled(log: &Log) -> BTreeSet<u64> {
    log.items
        .keys()
        .copied()
        .filter(|n| !log.settled.contains(n))
        .collect()
}

fn sizes() -> impl Strategy<Value = Vec<(u32, usize)>> {
    prop::collection::vec((1u32..9, 0usize..90), 1..30)
}

proptest! {
    #[test]
    fn an_untouched_log_comes_back_whole(sizes in sizes(), settled in prop::collection::btree_set(0u64..30, 0..9)) {
        let log = log(&sizes, &settled);
        let (kept, verdicts, recovered) = recover(&log);
        prop_assert_eq!(kept, unsettled(&log));
        prop_assert!(verdicts.iter().all(|v| *v == Verdict::Keep));
        prop_assert_eq!((recovered.lost, recovered.next), (0, sizes.len() as u64));
        prop_assert_eq!(recovered.accounts["traces"].accepted, log.accepted);
    }

    /// Whatever of the newest segment reached the disk when the process died: a prefix comes back.
    #[test]
    fn a_crash_at_any_byte_leaves_a_prefix(sizes in sizes(), cut in any::<prop::sample::Index>()) {
        let mut log = log(&sizes, &BTreeSet::new());
        let last = log.segments.len() - 1;
        let length = cut.index(log.segments[last].1.len() + 1);
        log.segments[last].1.truncate(length);
        let (kept, verdicts, recovered) = recover(&log);
        let whole = log.ends.iter().filter(|(_, (index, end))| *index < last || *end <= length);
        prop_assert_eq!(kept, whole.map(|(n, _)| *n).collect::<BTreeSet<_>>());
        prop_assert_eq!(recovered.lost, 0);
        match &verdicts[last] {
            Verdict::Cut(at) => prop_assert!(*at as usize <= length),
            Verdict::Keep => {}
            Verdict::Quarantine => prop_assert!(false, "a cut is no damage"),
        }
    }

    /// Flipped bytes cost the records that they hit, and no other.
    #[test]
    fn damage_costs_what_it_hits(
        sizes in sizes(),
        settled in prop::collection::btree_set(0u64..30, 0..9),
        hits in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), 1u8..=255), 1..6),
    ) {
        let mut log = log(&sizes, &settled);
        let mut hit = BTreeSet::new();
        for (segment, at, flip) in hits {
            let index = segment.index(log.segments.len());
            let at = at.index(log.segments[index].1.len());
            log.segments[index].1[at] ^= flip;
            // The item whose frame holds the byte, if it is one.
            let item = log.ends.iter().find(|(_, (i, end))| *i == index && at < *end);
            hit.extend(item.map(|(n, _)| *n));
        }
        let (kept, _, recovered) = recover(&log);
        let all = unsettled(&log);
        prop_assert!(kept.is_subset(&all));
        prop_assert!(all.difference(&hit).all(|n| kept.contains(n)), "{kept:?} of {all:?} without {hit:?}");
        prop_assert!(recovered.accounts.get("traces").is_none_or(|c| c.accepted <= log.accepted));
    }

    #[test]
    fn no_bytes_make_it_panic(
        state in prop::collection::vec(any::<u8>(), 0..200),
        segment in prop::collection::vec(any::<u8>(), 0..400),
        framed in any::<bool>(),
    ) {
        let bytes = match framed {
            false => segment,
            true => {
                let mut bytes = frame::preamble(ID).to_vec();
                segment.chunks(40).for_each(|body| frame::put(&mut bytes, ID, body));
                bytes
            }
        };
        let mut recovery = Recovery::new(&state, ID);
        recovery.segment(3, &bytes, true);
        recovery.segment(9, &bytes, false);
        prop_assert!(recovery.finish().accounts.values().all(Counts::balances));
    }
}

#[test]
fn what_a_client_sends_is_never_taken_for_a_record() {
    // A payload that is a whole frame of another queue, and the record that holds it is damaged.
    let mut inner = Vec::new();
    let forged = record::item(&Item {
        sequence: 99,
        time: 0,
        signal: Signal::Logs,
        items: 5,
        accepted: 0,
        account: "forged",
    });
    frame::put(&mut inner, *b"clients!", &forged);
    let mut bytes = frame::preamble(ID).to_vec();
    let at = bytes.len();
    frame::put(&mut bytes, ID, &inner);
    bytes[at + frame::HEAD - 1] ^= 1;
    let mut recovery = Recovery::new(&[], ID);
    assert!(recovery.segment(0, &bytes, true).kept.is_empty());
}

struct Bench {
    folder: tempfile::TempDir,
    ledger: Arc<Ledger>,
    settings: Settings,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let settings = Settings {
            files: FileSettings {
                folder: folder.path().join("queue"),
                sync: false,
                segment_size: 4096,
                lock_timeout: Duration::ZERO,
            },
            workers: 4,
            capacity: 1000,
            sizer: Sizer::Requests,
            max_bytes: 1 << 20,
            when_full: WhenFull::Refuse,
            block: false,
            keep: 1 << 20,
            backlog_rate: 0,
        };
        Bench {
            folder,
            ledger: Arc::default(),
            settings,
        }
    }

    async fn open(&mut self) -> Result<DurableQueue, OpenError> {
        // A new ledger, as in a new process.
        self.ledger = Arc::default();
        let ledger = self.ledger.clone();
        let exporter = "otlp".parse().unwrap();
        let account = move |pipeline: &str| ledger.account(pipeline, &exporter);
        DurableQueue::open(
            "exporters.otlp",
            self.settings.clone(),
            Box::new(account),
            Box::new(|_, _, _, _| {}),
        )
        .await
    }

    fn counts(&self) -> Counts {
        let counts = self.ledger.account("traces", &"otlp".parse().unwrap()).counts();
        assert!(counts.balances(), "{counts:?}");
        counts
    }

    fn segments(&self) -> Vec<std::path::PathBuf> {
        let folder = std::fs::read_dir(self.folder.path().join("queue")).unwrap();
        let mut paths: Vec<_> = folder.map(|entry| entry.unwrap().path()).collect();
        paths.retain(|path| path.extension().is_some_and(|e| e == "segment"));
        paths.sort();
        paths
    }
}

fn batch(number: u64, bytes: usize) -> Batch {
    let mut payload = number.to_le_bytes().to_vec();
    payload.resize(bytes.max(8), 0xaa);
    Batch {
        signal: Signal::Traces,
        payload: payload.into(),
        items: 3,
        context: None,
    }
}

fn number(batch: &Batch) -> u64 {
    u64::from_le_bytes(batch.payload[..8].try_into().unwrap())
}

async fn append(queue: &DurableQueue, number: u64, bytes: usize) -> Result<(), Refusal> {
    queue.append(batch(number, bytes), &"traces".into()).await
}

async fn take(queue: &DurableQueue) -> super::Delivery {
    let next = tokio::time::timeout(Duration::from_secs(20), queue.next()).await;
    next.expect("in time").expect("open")
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_crash_and_what_is_settled_is_not() {
    let mut bench = Bench::new();
    let queue = bench.open().await.unwrap();
    for number in 0..40 {
        append(&queue, number, 400).await.unwrap();
    }
    for _ in 0..10 {
        let delivery = take(&queue).await;
        queue.settle(&delivery, &[(3, Fate::Delivered)]);
    }
    let under_way = take(&queue).await;
    assert_eq!(number(&under_way.batch), 10);
    // A clean close writes what is settled; nothing else of it matters here: the files are what a killed process leaves.
    queue.close().await;
    let queue = bench.open().await.unwrap();
    let counts = bench.counts();
    assert_eq!((counts.accepted, counts.delivered, counts.queued), (120, 30, 90));
    let again = take(&queue).await;
    assert_eq!((number(&again.batch), again.id), (10, under_way.id));
    queue.settle(&again, &[(1, Fate::Delivered), (2, Fate::Refused)]);
    for expected in 11..40 {
        let delivery = take(&queue).await;
        assert_eq!(number(&delivery.batch), expected);
        queue.settle(&delivery, &[(3, Fate::Delivered)]);
    }
    let counts = bench.counts();
    assert_eq!((counts.delivered, counts.refused, counts.queued), (118, 2, 0));
    queue.close().await;
    assert!(bench.segments().len() <= 1, "{:?}", bench.segments());
    bench.open().await.unwrap().close().await;
    assert_eq!(bench.counts(), counts);
}

#[tokio::test]
async fn a_damaged_segment_is_set_aside_and_the_ledger_says_what_is_lost() {
    let mut bench = Bench::new();
    let queue = bench.open().await.unwrap();
    for number in 0..30 {
        append(&queue, number, 400).await.unwrap();
    }
    queue.close().await;
    let victim = bench.segments()[1].clone();
    let mut bytes = std::fs::read(&victim).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 500].fill(0);
    std::fs::write(&victim, bytes).unwrap();
    let queue = bench.open().await.unwrap();
    let counts = bench.counts();
    let lost = counts.dropped[Reason::Corrupt as usize];
    assert!((3..=9).contains(&lost), "{counts:?}");
    assert_eq!(counts.accepted, 90);
    let mut seen = Vec::new();
    for _ in 0..(90 - lost) / 3 {
        let delivery = take(&queue).await;
        seen.push(number(&delivery.batch));
        queue.settle(&delivery, &[(3, Fate::Delivered)]);
    }
    assert!(seen.windows(2).all(|pair| pair[0] < pair[1]));
    let aside = std::fs::read_dir(bench.folder.path().join("queue/quarantine")).unwrap();
    assert_eq!(aside.count(), 1);
    queue.close().await;
    bench.open().await.unwrap().close().await;
    assert_eq!(bench.counts().dropped[Reason::Corrupt as usize], lost);
}

#[tokio::test]
async fn a_full_queue_refuses_or_drops_the_oldest() {
    let mut bench = Bench::new();
    bench.settings.max_bytes = 40_000;
    let queue = bench.open().await.unwrap();
    let mut taken = 0;
    let refusal = loop {
        match append(&queue, taken, 1000).await {
            Ok(()) => taken += 1,
            Err(refusal) => break refusal,
        }
    };
    assert!(refusal.retryable && (30..40).contains(&taken), "{taken}");
    // Delivering makes room.
    for _ in 0..10 {
        let delivery = take(&queue).await;
        queue.settle(&delivery, &[(3, Fate::Delivered)]);
    }
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while append(&queue, taken, 1000).await.is_err() {
        assert!(tokio::time::Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    queue.close().await;
    bench.settings.when_full = WhenFull::DropOldest;
    let queue = bench.open().await.unwrap();
    for number in 100..120 {
        append(&queue, number, 1000).await.unwrap();
    }
    let counts = bench.counts();
    assert!(counts.dropped[Reason::Overflow as usize] > 0, "{counts:?}");
    let used: u64 = bench
        .segments()
        .iter()
        .map(|path| path.metadata().unwrap().len())
        .sum();
    assert!(used <= 42_000, "{used}");
    queue.close().await;
}

#[tokio::test]
async fn a_folder_has_one_queue_at_a_time() {
    let mut bench = Bench::new();
    let queue = bench.open().await.unwrap();
    assert!(matches!(bench.open().await, Err(OpenError::Locked(_))));
    queue.close().await;
    drop(queue);
    bench.open().await.unwrap().close().await;
}

#[tokio::test]
async fn many_at_once_are_all_taken_and_the_open_files_are_few() {
    let mut bench = Bench::new();
    bench.settings.files.sync = true;
    bench.settings.capacity = 10_000;
    let queue = Arc::new(bench.open().await.unwrap());
    let appends = (0..500).map(|number| {
        let queue = queue.clone();
        tokio::spawn(async move { append(&queue, number, 100).await })
    });
    for done in futures::future::join_all(appends).await {
        done.unwrap().unwrap();
    }
    let ours = |entry: std::io::Result<std::fs::DirEntry>| {
        let target = std::fs::read_link(entry.ok()?.path()).ok()?;
        target.starts_with(bench.folder.path()).then_some(())
    };
    let open = std::fs::read_dir("/proc/self/fd")
        .unwrap()
        .filter_map(ours)
        .count();
    assert!(open <= 4, "{open} open files");
    let mut seen = BTreeSet::new();
    for _ in 0..500 {
        let delivery = take(&queue).await;
        seen.insert(number(&delivery.batch));
        queue.settle(&delivery, &[(3, Fate::Delivered)]);
    }
    assert_eq!(seen.len(), 500);
    queue.close().await;
}
