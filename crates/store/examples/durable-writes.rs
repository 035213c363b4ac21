//! Measures durable commits: how many in a second, and how long one takes.
//!
//! ```text
//! cargo run --release -p toono-store --example durable-writes -- \
//!     [--writers 256] [--bytes 1024] [--seconds 10] [--keys 100000] [--dir DIR] [--etcd URL]
//! ```
//!
//! Each writer replaces one object after another, and waits for each to be on the disk. The directory
//! should be on the disk that matters: a RAM disk measures nothing. It is made, and removed. Then the
//! store is opened again, to see how long that takes.
//!
//! With `--etcd` the store is in an etcd instead, which should be empty, and is not emptied.

use std::error::Error;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use toono_http::client::Endpoint;
use toono_store::{
    Draft, EtcdConfig, Expect, Key, Op, Owner, Prefix, Recovery, Store, StoreConfig, Txn,
};

struct Arguments {
    writers: usize,
    bytes: usize,
    seconds: u64,
    keys: usize,
    dir: PathBuf,
    etcd: Option<Endpoint>,
}

impl Arguments {
    fn parse() -> Result<Self, Box<dyn Error>> {
        let dir = format!("durable-writes.{}", std::process::id());
        let mut arguments = Self {
            writers: 256,
            bytes: 1024,
            seconds: 10,
            keys: 100_000,
            dir: dir.into(),
            etcd: None,
        };
        let mut words = std::env::args().skip(1);
        while let Some(name) = words.next() {
            let value = words.next().ok_or_else(|| format!("{name} needs a value"))?;
            match name.as_str() {
                "--writers" => arguments.writers = value.parse()?,
                "--bytes" => arguments.bytes = value.parse()?,
                "--seconds" => arguments.seconds = value.parse()?,
                "--keys" => arguments.keys = value.parse()?,
                "--etcd" => arguments.etcd = Some(value.parse()?),
                "--dir" => arguments.dir = value.into(),
                _ => return Err(format!("unknown argument {name}").into()),
            }
        }
        if arguments.dir.exists() {
            return Err(format!("{} exists already", arguments.dir.display()).into());
        }
        Ok(arguments)
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let measured = runtime.block_on(measure(&arguments));
    let reopened = runtime.block_on(reopen(&arguments));
    if arguments.etcd.is_none() {
        std::fs::remove_dir_all(&arguments.dir)?;
    }
    let mut latencies = measured?;
    latencies.sort_unstable();
    let per_second = latencies.len() as u64 / arguments.seconds.max(1);
    let percentile = |percent: usize| {
        let index = (latencies.len() * percent / 100).min(latencies.len().saturating_sub(1));
        latencies.get(index).copied().unwrap_or_default().as_secs_f64() * 1000.0
    };
    println!(
        "{} writers, {} byte objects, {} s: {per_second} durable writes/s, \
         p50 {:.2} ms, p99 {:.2} ms, slowest {:.2} ms",
        arguments.writers,
        arguments.bytes,
        arguments.seconds,
        percentile(50),
        percentile(99),
        percentile(100),
    );
    println!("{}", reopened?);
    Ok(())
}

async fn open(arguments: &Arguments) -> Result<(Store, Recovery), Box<dyn Error>> {
    Ok(match &arguments.etcd {
        None => Store::open(StoreConfig::new(&arguments.dir))?,
        Some(endpoint) => Store::connect(EtcdConfig::new(vec![endpoint.clone()], None)).await?,
    })
}

/// Recovers what was written.
async fn reopen(arguments: &Arguments) -> Result<String, Box<dyn Error>> {
    let begun = Instant::now();
    let (store, recovery) = open(arguments).await?;
    let seconds = begun.elapsed().as_secs_f64();
    let prefix = Prefix::resource("", "configmaps");
    let objects = store.list(&prefix, store.revision(), None, usize::MAX)?.entries.len();
    Ok(format!(
        "opened again in {seconds:.2} s: {objects} objects, snapshot at revision {}, {} revisions \
         replayed",
        recovery.snapshot, recovery.replayed,
    ))
}

/// The time that each acknowledged commit took.
async fn measure(arguments: &Arguments) -> Result<Vec<Duration>, Box<dyn Error>> {
    let (store, _) = open(arguments).await?;
    let end = Instant::now() + Duration::from_secs(arguments.seconds);
    let mut writers = Vec::new();
    for writer in 0..arguments.writers {
        let keys = (arguments.keys / arguments.writers.max(1)).max(1);
        writers.push(tokio::spawn(write(store.clone(), writer, keys, arguments.bytes, end)));
    }
    let mut latencies = Vec::new();
    for writer in writers {
        latencies.extend(writer.await??);
    }
    Ok(latencies)
}

async fn write(
    store: Store,
    writer: usize,
    keys: usize,
    bytes: usize,
    end: Instant,
) -> Result<Vec<Duration>, toono_store::CommitError> {
    let mut latencies = Vec::new();
    let head = format!(r#"{{"data":"{}","resourceVersion":""#, "x".repeat(bytes));
    for n in 0_usize.. {
        let begun = Instant::now();
        if begun >= end {
            break;
        }
        let key = Key::new("", "configmaps", "bench", &format!("w{writer}-{}", n % keys));
        let value = Draft::new(head.clone(), r#""}"#);
        let op = Op::Put { key, value, owner: Owner::PLATFORM };
        store.commit(Txn::of(Expect::Any, op)).await?;
        latencies.push(begun.elapsed());
    }
    Ok(latencies)
}
