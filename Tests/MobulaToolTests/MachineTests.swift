import MobulaCore
import Testing

@testable import MobulaSupervisor
@testable import MobulaTool

/// What a process may use of its machine: cgroups of both versions, affinity, shares.
@Suite struct MachineTests {
  private func groups(_ files: [String: String]) -> ControlGroups { ControlGroups { files[$0] } }

  private let unified = "25 1 0:22 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
  private let old =
    "30 1 0:30 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n31 1 0:31 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"

  @Test func leastOfAllGroupsAround() {
    let nested = groups([
      "/proc/self/cgroup": "0::/user.slice/session.scope\n", "/proc/self/mountinfo": unified,
      "/sys/fs/cgroup/user.slice/memory.max": "2000000000\n",
      "/sys/fs/cgroup/user.slice/session.scope/memory.max": "max\n",
      "/sys/fs/cgroup/user.slice/session.scope/memory.high": "1500000000\n",
      "/sys/fs/cgroup/user.slice/cpu.max": "150000 100000\n",
      "/sys/fs/cgroup/user.slice/session.scope/cpu.max": "max 100000\n",
    ])
    #expect(nested.memoryLimit == 1_500_000_000)
    #expect(nested.cpuLimit == 1.5)
  }

  @Test func versionOne() {
    let nested = groups([
      "/proc/self/cgroup": "4:memory:/a/b\n3:cpu,cpuacct:/a\n0::/\n", "/proc/self/mountinfo": old + unified,
      "/sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
      "/sys/fs/cgroup/memory/a/memory.limit_in_bytes": "1073741824\n",
      "/sys/fs/cgroup/memory/a/b/memory.limit_in_bytes": "9223372036854771712\n",
      "/sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_quota_us": "50000\n",
      "/sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_period_us": "100000\n",
      "/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "-1\n",
    ])
    #expect(nested.memoryLimit == 1_073_741_824)
    #expect(nested.cpuLimit == 0.5)
  }

  @Test func containersSeeTheirOwnGroupAtTheMount() {
    let bound = old.replacing(" / /sys/fs/cgroup/memory", with: " /docker/abc /sys/fs/cgroup/memory")
    for path in ["/docker/abc", "/docker/abc/inner", "/elsewhere", "/../.."] {
      let inside = groups([
        "/proc/self/cgroup": "4:memory:\(path)\n", "/proc/self/mountinfo": bound,
        "/sys/fs/cgroup/memory/memory.limit_in_bytes": "1000\n",
        "/sys/fs/cgroup/memory/inner/memory.limit_in_bytes": "500\n",
      ])
      #expect(inside.memoryLimit == (path.hasSuffix("inner") ? 500 : 1000), "\(path)")
    }
  }

  @Test func nothingLimits() {
    #expect(groups([:]).memoryLimit == nil)
    let odd = groups([
      "/proc/self/cgroup": "x\n0::/\n", "/proc/self/mountinfo": "short\n" + unified,
      "/sys/fs/cgroup/memory.max": "many\n", "/sys/fs/cgroup/cpu.max": "1 0\n",
    ])
    #expect(odd.memoryLimit == nil && odd.cpuLimit == nil)
  }

  @Test(arguments: [
    ("0", 1), ("0-3", 4), ("0,2-3,8", 4), ("", nil), ("3-1", nil), ("a", nil), ("0-9999999999999", nil),
  ])
  func affinity(list: String, count: Int?) {
    #expect(Machine.allowedCPUs(status: "Name:\tx\nCpus_allowed_list:\t\(list)\nMems:\t0\n") == count)
  }

  @Test func storeLeavesRoom() throws {
    let shares = MemoryShares(machine: .gigabytes(1), source: "this machine's memory")
    let capacity = shares.defaultCapacity
    #expect(capacity.bytes + shares.memory(beside: capacity).bytes + shares.reserve <= 1_000_000_000)
    #expect(try shares.check(capacity) == nil)
    #expect(try shares.check(.megabytes(850))?.contains("850 MB") == true)
    #expect(throws: MobulaError.self) { try shares.check(.megabytes(950)) }
    #expect(throws: MobulaError.self) { try shares.check(ByteCount(.max)) }
    // What the refusal advises works.
    do {
      _ = try shares.check(.gigabytes(2))
    } catch {
      let advised = try #require(
        error.message.split(separator: " ").compactMap { ByteCount(String($0.dropLast())) }.last)
      _ = try shares.check(advised)
    }
  }

  @Test func podsShareWhatTheyDontName() {
    func entry(_ resources: Resources) -> StartConfiguration.PodEntry {
      .init(pod: .random(), name: "p", resources: resources)
    }
    var pods = [entry([:]), entry(["CPU": 1]), entry([:])]
    PodShares.divide(4, "CPU", whole: 1, among: &pods)
    #expect(pods.map { $0.resources["CPU"] } == [2, 1, 1])
    pods = [entry([:]), entry([:]), entry([:])]
    PodShares.divide(2, "CPU", whole: 1, among: &pods)
    #expect(pods.allSatisfy { $0.resources["CPU"] == ResourceAmount(tenThousandths: 6666) })
    pods = [entry(["CPU": 9]), entry([:])]
    PodShares.divide(2, "CPU", whole: 1, among: &pods)
    #expect(pods[1].resources["CPU"] == .zero)
  }
}
