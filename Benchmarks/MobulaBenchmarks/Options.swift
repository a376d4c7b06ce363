import MobulaCore

/// What the command line asks for.
struct Options {
  var filter: String?
  var json: String?
  var thresholds: String?
  var checks = false
  var isQuick = false
  var showsHelp = false

  /// - Throws: `MobulaError` (`invalidArgument`).
  init(_ arguments: [String]) throws {
    var rest = arguments[...]
    func value(_ name: String) throws -> String {
      guard let value = rest.popFirst() else {
        throw MobulaError(.invalidArgument, "\(name) needs a value: see --help.")
      }
      return value
    }
    while let argument = rest.popFirst() {
      switch argument {
      case "--filter": filter = try value(argument)
      case "--json": json = try value(argument)
      case "--thresholds": thresholds = try value(argument)
      case "--check": checks = true
      case "--quick": isQuick = true
      case "--help", "-h": showsHelp = true
      default: throw MobulaError(.invalidArgument, "\(argument) means nothing here: see --help.")
      }
    }
  }

  static let help = """
    USAGE: MobulaBenchmarks [--filter TEXT] [--json FILE] [--check] [--quick] [--thresholds FILE]

    Counts what operations of a host's store cost, and times them, between processes of their own.

      --filter TEXT      only benchmarks with TEXT in their name
      --json FILE        the rows, too, as JSON; "-" is standard output, and then nothing else is
      --check            counts alone; exit status 1, and a sentence for each, where one is over its threshold
      --quick            fewer operations: counts within 15 seconds and 1 GB of memory
      --thresholds FILE  instead of Benchmarks/thresholds.json

    EXAMPLES
      MobulaBenchmarks --check --quick
      MobulaBenchmarks --filter "get" --json results/get.json
      MobulaBenchmarks --filter "an object of 100 MB"

    COUNTS are of one operation, on average.
      system calls    of the client's thread and the threads that it starts. A seccomp filter reports each
                      call to another thread, which counts it and lets it go on: no ptrace, no strace.
      store's calls   the same for all threads of the store, up to the operation's end.
      allocations     calls of malloc and its kin by the client's thread.
      page faults     minor ones of the client's thread: pages that it was the first to touch, or to map.
      copied bytes    what a reader's private memory grew by, from before the get until all bytes were read.
      killed          1 when a filter killed the process for a system call: the operation was promised to make none.
      memory          all memory of the store's and the readers' processes together (the sum of their Pss and
                      page tables), as a share of the object, once ten have read all of it.
      with code       the same with the code of their libraries, which other programs may share, or not.

    TIMES depend on the machine and what else runs on it, so they have no thresholds. Rates are of whole
    batches: best and median. Quantiles are of single operations, each between two readings of the monotonic
    clock (clock_gettime in the vDSO, not the CPU's time stamp counter, whose rate is another on each machine):
    they include what "two readings of the clock" says. Where the machine is busy, the highest quantiles show
    its scheduler.
    """
}
