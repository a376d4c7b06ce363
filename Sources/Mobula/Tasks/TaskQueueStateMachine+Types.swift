import MobulaCore

extension TaskQueueStateMachine {
  /// What tasks have in common that may run on the same lease.
  struct Shape: Hashable, Sendable {
    var demand: Resources
    var strategy: PlacementStrategy
    /// Variables of the workers' environment, beside those that all of the job's have.
    var environment: [String: String] = [:]
  }

  /// How often, and for how long, a task is tried.
  struct Limits: Hashable, Sendable {
    /// How often it is started again whose worker was lost.
    var losses = 3
    /// How often it is started again after an error of its own that is worth it.
    var errors = 0
    /// How long one attempt may run.
    var attempt: Duration?
    /// When it fails, wherever it is.
    var end: Instant?
    /// How long it may wait for a lease.
    var wait: Duration?
  }

  struct Settings: Sendable {
    /// How long a lease is kept without work.
    var linger = Duration.milliseconds(10)
    /// How long a lease is kept with work.
    var tenure = Duration.milliseconds(100)
    /// How long a task runs before those behind it are called back.
    var patience = Duration.milliseconds(10)
    /// Tasks that take longer are not pushed ahead.
    var longTask = Duration.milliseconds(5)
    /// So much work is pushed ahead.
    var ahead = Duration.milliseconds(1)
    /// The most tasks that are at one worker.
    var mostPushed = 128
    /// The most leases that are asked for at a time.
    var mostRequests = 64
    /// The pause before a task's second attempt; twice as long before each further one, up to `longestPause`.
    var firstPause = Duration.milliseconds(100)
    var longestPause = Duration.seconds(10)
    /// How long a task that is to end has for it before its worker is ended.
    var grace = Duration.seconds(5)
    /// How long the first task waits for a lease that is lent here before others are asked for.
    var askDelay = Duration.zero
  }

  enum Action: Equatable {
    case request(SlotID, Shape)
    /// What is asked for is not needed any more.
    case withdraw(SlotID)
    case push(SlotID, [TaskID])
    case recall(SlotID, [TaskID])
    /// Tasks that are to end, or not to begin.
    case cancel(SlotID, [TaskID])
    /// The task runs in this process, on a lease that was lent here.
    case runHere(SlotID, TaskID)
    case giveBack(SlotID, workerIsReusable: Bool)
    case fail(TaskID, MobulaError)
    /// A task that will run again, and why it did not end.
    case retry(TaskID, MobulaError)
    case wakeAt(Instant)
  }

  struct Item {
    enum Place: Equatable {
      /// So many of its arguments are still to come.
      case blocked(Int)
      case waiting
      case delayed
      case at(SlotID)
    }

    var place: Place
    /// Since when it has waited for a lease.
    var ready: Instant
    var line: Int32
    var losses: Int32 = 0
    var errors: Int32 = 0
    /// How often its worker could not be reached, without its having begun.
    var misses: Int16 = 0
    /// Whether there are limits of its own.
    var hasLimits: Bool
    /// Whether it is to end; its worker knows.
    var isCancelled = false
  }

  struct Slot {
    /// Can transition to: open, and to its end.
    enum Phase { case requested, granted, open }

    /// That which it serves; any for one that is lent here.
    var line: Int
    var phase = Phase.requested
    /// In the order in which they run.
    var pushed: [TaskID] = []
    /// Since when the first of them has been running, as far as is known here.
    var frontSince: Instant?
    var idleSince: Instant?
    var openSince: Instant?
    var isRecalling = false
    /// Whether the task that runs takes long, so that nothing is to wait behind it.
    var isStuck = false
    /// Whether it gets no more work, and is given back when it has none.
    var isRetiring = false
    /// Whether a task of this process lends it while it waits.
    var isLent = false
    /// When its worker is ended, since a task that has failed here still runs there.
    var killAt: Instant?

    var isIdle: Bool { phase == .open && pushed.isEmpty }

    /// - Returns: whether the first of the tasks is the one that runs.
    mutating func push(_ tasks: [TaskID], _ now: Instant) -> Bool {
      let isFirst = pushed.isEmpty
      if isFirst { frontSince = now }
      pushed += tasks
      idleSince = nil
      return isFirst
    }

    /// The task at this place of those that were pushed is not here any more.
    mutating func leave(_ index: Int, _ now: Instant) {
      pushed.remove(at: index)
      guard index == 0 else { return }
      frontSince = pushed.isEmpty ? nil : now
      (isStuck, killAt) = (false, nil)
    }
  }

  struct Line {
    let shape: Shape
    var waiting = TaskLine()
    /// In the order in which they were asked for.
    var slots: [SlotID] = []
    /// How long a task runs; `nil` until one has.
    var mean: Duration?
    /// The most leases that are asked for at a time: doubled with each that is granted.
    var ramp = 2
    /// What the head says is missing, for as long as nothing was granted since.
    var shortage: String?

    init(_ shape: Shape) { self.shape = shape }
  }
}
