//! What a control group uses of the machine, read from the kernel's files when somebody asks.
//!
//! It keeps nothing and computes no rate. Version 1 has a tree for each controller, version 2 one
//! for all; what each number means is Kubernetes' (cAdvisor's) reading of both.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// The unit of `cpuacct.stat` and of `/proc/stat`: the kernel shows hundredths of a second to programs,
/// whatever it counts in.
const TICK_NANOS: u64 = 10_000_000;
/// Limits from here on are no limits: version 1 says "none" by the largest whole number of pages.
const NO_LIMIT: u64 = 1 << 62;

/// What the processes of a group use, those of the groups below it included.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Processor time since the group was made, in nanoseconds.
    pub cpu_nanos: u64,
    /// The part of it in programs.
    pub cpu_user_nanos: u64,
    /// The part of it in the kernel.
    pub cpu_system_nanos: u64,
    /// Bytes of memory, with the page cache.
    pub memory_bytes: u64,
    /// Of these, what could not be reclaimed at once: all but files that nobody has used lately.
    pub working_set_bytes: u64,
    /// Of these, anonymous memory.
    pub rss_bytes: u64,
    /// Of these, the page cache.
    pub cache_bytes: u64,
    /// Of the page cache, what is mapped.
    pub mapped_bytes: u64,
    /// Page faults since the group was made.
    pub page_faults: u64,
    /// Those that had to read from a disk.
    pub major_page_faults: u64,
    /// Bytes of memory that it may have; none for no limit.
    pub memory_limit_bytes: Option<u64>,
    /// Bytes that were swapped out.
    pub swap_bytes: u64,
    /// Processes and threads.
    pub processes: u64,
}

/// Where the controllers of this machine are mounted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trees {
    cpu: Option<Tree>,
    memory: Option<Tree>,
    pids: Option<Tree>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Tree {
    V1(PathBuf),
    V2(PathBuf),
}

impl Trees {
    /// Looks for them.
    ///
    /// # Errors
    /// A table of mounts that cannot be read.
    pub fn find() -> io::Result<Self> {
        Ok(Self::of(&fs::read_to_string("/proc/self/mounts")?))
    }

    /// One tree of version 2 with all controllers, mounted there.
    #[must_use]
    pub fn unified(root: &Path) -> Self {
        let tree = Some(Tree::V2(root.to_owned()));
        Self { cpu: tree.clone(), memory: tree.clone(), pids: tree }
    }

    /// A controller is in one version only; of those side by side version 1 has the controllers.
    fn of(mounts: &str) -> Self {
        let mut trees = Self::default();
        let mut unified = None;
        for line in mounts.lines() {
            let mut fields = line.split(' ').skip(1);
            let (Some(path), Some(kind), Some(options)) =
                (fields.next(), fields.next(), fields.next())
            else {
                continue;
            };
            let has = |controller: &str| options.split(',').any(|option| option == controller);
            let take = |controller: &str, place: &mut Option<Tree>| {
                if kind == "cgroup" && place.is_none() && has(controller) {
                    *place = Some(Tree::V1(path.into()));
                }
            };
            take("cpuacct", &mut trees.cpu);
            take("memory", &mut trees.memory);
            take("pids", &mut trees.pids);
            if kind == "cgroup2" {
                unified = Some(Tree::V2(path.into()));
            }
        }
        for place in [&mut trees.cpu, &mut trees.memory, &mut trees.pids] {
            if place.is_none() {
                place.clone_from(&unified);
            }
        }
        trees
    }

    /// What the group of this path uses; none when there is no such group.
    #[must_use]
    pub fn usage(&self, path: &Path) -> Option<Usage> {
        let mut usage = Usage::default();
        match self.cpu.as_ref()? {
            Tree::V1(root) => usage.read_cpu_v1(&root.join(path))?,
            Tree::V2(root) => usage.read_cpu_v2(&root.join(path))?,
        }
        match &self.memory {
            Some(Tree::V1(root)) => usage.read_memory_v1(&root.join(path)),
            Some(Tree::V2(root)) => usage.read_memory_v2(&root.join(path)),
            None => {}
        }
        if let Some(Tree::V1(root) | Tree::V2(root)) = &self.pids {
            usage.processes = number(&root.join(path), "pids.current").unwrap_or(0);
        }
        Some(usage)
    }
}

impl Usage {
    fn read_cpu_v1(&mut self, group: &Path) -> Option<()> {
        self.cpu_nanos = number(group, "cpuacct.usage")?;
        let stat = Table::read(group, "cpuacct.stat");
        self.cpu_user_nanos = stat.of("user").saturating_mul(TICK_NANOS);
        self.cpu_system_nanos = stat.of("system").saturating_mul(TICK_NANOS);
        Some(())
    }

    fn read_cpu_v2(&mut self, group: &Path) -> Option<()> {
        let stat = Table::read(group, "cpu.stat");
        let nanos = |name: &str| stat.find(name).map(|micros| micros.saturating_mul(1000));
        self.cpu_nanos = nanos("usage_usec")?;
        self.cpu_user_nanos = nanos("user_usec").unwrap_or(0);
        self.cpu_system_nanos = nanos("system_usec").unwrap_or(0);
        Some(())
    }

    fn read_memory_v1(&mut self, group: &Path) {
        let stat = Table::read(group, "memory.stat");
        self.memory_bytes = number(group, "memory.usage_in_bytes").unwrap_or(0);
        self.working_set_bytes = self.memory_bytes.saturating_sub(stat.of("total_inactive_file"));
        self.rss_bytes = stat.of("total_rss");
        self.cache_bytes = stat.of("total_cache");
        self.mapped_bytes = stat.of("total_mapped_file");
        self.page_faults = stat.of("total_pgfault");
        self.major_page_faults = stat.of("total_pgmajfault");
        self.swap_bytes = stat.of("total_swap");
        self.memory_limit_bytes =
            number(group, "memory.limit_in_bytes").filter(|it| *it < NO_LIMIT);
    }

    fn read_memory_v2(&mut self, group: &Path) {
        let stat = Table::read(group, "memory.stat");
        self.memory_bytes = number(group, "memory.current").unwrap_or(0);
        self.working_set_bytes = self.memory_bytes.saturating_sub(stat.of("inactive_file"));
        self.rss_bytes = stat.of("anon");
        self.cache_bytes = stat.of("file");
        self.mapped_bytes = stat.of("file_mapped");
        self.page_faults = stat.of("pgfault");
        self.major_page_faults = stat.of("pgmajfault");
        self.swap_bytes = number(group, "memory.swap.current").unwrap_or(0);
        // "max" is no number.
        self.memory_limit_bytes = number(group, "memory.max");
    }
}

fn number(group: &Path, file: &str) -> Option<u64> {
    fs::read_to_string(group.join(file)).ok()?.trim().parse().ok()
}

/// Names and numbers, one pair a line.
struct Table(String);

impl Table {
    fn read(group: &Path, file: &str) -> Self {
        Self(fs::read_to_string(group.join(file)).unwrap_or_default())
    }

    fn find(&self, name: &str) -> Option<u64> {
        let line = self.0.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line?.trim().parse().ok()
    }

    fn of(&self, name: &str) -> u64 {
        self.find(name).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
tmpfs /sys/fs/cgroup tmpfs rw,relatime,mode=755 0 0
cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,relatime,cpu,cpuacct 0 0
cgroup /sys/fs/cgroup/memory cgroup rw,relatime,memory 0 0
cgroup /sys/fs/cgroup/systemd cgroup rw,relatime,name=systemd 0 0
cgroup2 /sys/fs/cgroup/unified cgroup2 rw,relatime 0 0
";

    #[test]
    fn controllers_are_found_in_either_version() {
        let trees = Trees::of(HYBRID);
        assert_eq!(trees.cpu, Some(Tree::V1("/sys/fs/cgroup/cpu,cpuacct".into())));
        assert_eq!(trees.memory, Some(Tree::V1("/sys/fs/cgroup/memory".into())));
        assert_eq!(trees.pids, Some(Tree::V2("/sys/fs/cgroup/unified".into())));
        let one = Trees::of("cgroup2 /sys/fs/cgroup cgroup2 rw,nosuid,nodev,noexec,relatime 0 0\n");
        assert_eq!(one, Trees::unified(Path::new("/sys/fs/cgroup")));
    }

    fn written(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let group = dir.path().join("toono/pod1");
        fs::create_dir_all(&group).unwrap();
        for (name, text) in files {
            fs::write(group.join(name), text).unwrap();
        }
        dir
    }

    /// As the files of a group of version 2 are, by the kernel's documentation of them.
    #[test]
    fn version_2_is_read() {
        let root = written(&[
            (
                "cpu.stat",
                "usage_usec 1523\nuser_usec 1000\nsystem_usec 523\nnice_usec 0\nnr_periods 0\n",
            ),
            ("memory.current", "10485760\n"),
            ("memory.max", "max\n"),
            ("memory.swap.current", "4096\n"),
            (
                "memory.stat",
                "anon 4194304\nfile 5242880\nkernel 1048576\nfile_mapped 1310720\ninactive_anon 4190208\nactive_anon 4096\ninactive_file 3145728\nactive_file 2097152\npgfault 1207\npgmajfault 3\n",
            ),
            ("pids.current", "7\n"),
        ]);
        let trees = Trees::unified(root.path());
        let usage = trees.usage(Path::new("toono/pod1")).unwrap();
        let expected = Usage {
            cpu_nanos: 1_523_000,
            cpu_user_nanos: 1_000_000,
            cpu_system_nanos: 523_000,
            memory_bytes: 10 << 20,
            working_set_bytes: 7 << 20,
            rss_bytes: 4 << 20,
            cache_bytes: 5 << 20,
            mapped_bytes: 1_310_720,
            page_faults: 1207,
            major_page_faults: 3,
            memory_limit_bytes: None,
            swap_bytes: 4096,
            processes: 7,
        };
        assert_eq!(usage, expected);
        fs::write(root.path().join("toono/pod1/memory.max"), "67108864\n").unwrap();
        let usage = trees.usage(Path::new("toono/pod1")).unwrap();
        assert_eq!(usage.memory_limit_bytes, Some(64 << 20));
        assert_eq!(trees.usage(Path::new("toono/pod2")), None, "there is no such group");
    }

    #[test]
    fn version_1_is_read() {
        let root = written(&[
            ("cpuacct.usage", "2000000123\n"),
            ("cpuacct.stat", "user 150\nsystem 50\n"),
            ("memory.usage_in_bytes", "8388608\n"),
            ("memory.limit_in_bytes", "9223372036854771712\n"),
            (
                "memory.stat",
                "cache 1\nrss 2\ntotal_cache 3145728\ntotal_rss 5242880\ntotal_mapped_file 4096\ntotal_swap 0\ntotal_pgfault 99\ntotal_pgmajfault 1\ntotal_inactive_file 2097152\n",
            ),
            ("pids.current", "2\n"),
        ]);
        let tree = Some(Tree::V1(root.path().to_owned()));
        let trees = Trees { cpu: tree.clone(), memory: tree.clone(), pids: tree };
        let usage = trees.usage(Path::new("toono/pod1")).unwrap();
        assert_eq!((usage.cpu_nanos, usage.cpu_user_nanos), (2_000_000_123, 1_500_000_000));
        assert_eq!((usage.memory_bytes, usage.working_set_bytes), (8 << 20, 6 << 20));
        assert_eq!(
            (usage.rss_bytes, usage.cache_bytes, usage.memory_limit_bytes),
            (5 << 20, 3 << 20, None)
        );
        assert_eq!((usage.page_faults, usage.processes), (99, 2));
    }

    /// A group of version 2 on this machine, as far as it has one: without controllers it still tells its time.
    #[test]
    fn a_real_group_of_version_2_tells_its_time() {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        let mount = mounts.lines().find(|line| line.split(' ').nth(2) == Some("cgroup2"));
        let root = mount.and_then(|line| line.split(' ').nth(1));
        let root = Path::new(root.expect("this machine has cgroup version 2 mounted"));
        let usage = Trees::unified(root).usage(Path::new("")).unwrap();
        assert!(usage.cpu_nanos > 0 && usage.cpu_user_nanos <= usage.cpu_nanos);
    }
}
