internal import FoundationEssentials
internal import MobulaCore
internal import Synchronization

/// Keeps the credentials of a source, and gets new ones before they expire: 5 minutes before in the background,
/// and in the last minute so that whoever asks waits. One refresh is under way at a time, however many ask. One that
/// fails is tried again 30 s later while the old credentials are valid, and is an error after that. Those without an
/// expiration are kept until they are dropped.
///
/// Decisions are `CredentialsRefreshStateMachine`'s.
public final class CachedCredentials: S3CredentialsProvider {
  private typealias Continuation = CheckedContinuation<S3Credentials, any Error>

  private struct State {
    var machine = CredentialsRefreshStateMachine()
    var waiting: [Int: Continuation] = [:]
    var lastWaiter = 0
  }

  private let state: Mutex<State>
  private let deadline: Duration
  private let now: @Sendable () -> Date
  private let load: @Sendable () async throws -> S3Credentials

  /// - Parameters:
  ///   - source: asked for every refresh.
  ///   - deadline: of one refresh; 60 s by default.
  public convenience init(_ source: any S3CredentialsProvider, deadline: Duration = .seconds(60)) {
    self.init(deadline: deadline) { try await source.credentials() }
  }

  init(
    timing: CredentialsRefreshStateMachine.Timing = .init(), deadline: Duration = .seconds(60),
    now: @escaping @Sendable () -> Date = { Date() }, load: @escaping @Sendable () async throws -> S3Credentials
  ) {
    state = Mutex(State(machine: CredentialsRefreshStateMachine(timing: timing)))
    self.deadline = deadline
    self.now = now
    self.load = load
  }

  public func credentials() async throws -> S3Credentials {
    try Task.checkCancellation()
    let waiter = state.withLock { state in
      state.lastWaiter += 1
      return state.lastWaiter
    }
    return try await withTaskCancellationHandler {
      try await withCheckedThrowingContinuation { continuation in
        ask(waiter, continuation)
        // Cancelled before there was anything to cancel.
        if Task.isCancelled { leave(waiter) }
      }
    } onCancel: {
      leave(waiter)
    }
  }

  public func drop(_ refused: S3Credentials) -> Bool {
    state.withLock { $0.machine.drop(refused) }
    return true
  }

  private func ask(_ waiter: Int, _ continuation: Continuation) {
    let ask = state.withLock { state in
      let ask = state.machine.ask(waiter, at: now())
      switch ask {
      case .use, .useAndRefresh: break
      case .refreshAndWait, .wait: state.waiting[waiter] = continuation
      }
      return ask
    }
    switch ask {
    case .use(let credentials): continuation.resume(returning: credentials)
    case .useAndRefresh(let credentials, let refresh):
      begin(refresh)
      continuation.resume(returning: credentials)
    case .refreshAndWait(let refresh): begin(refresh)
    case .wait: break
    }
  }

  private func leave(_ waiter: Int) {
    let continuation = state.withLock { $0.machine.leave(waiter) ? $0.waiting.removeValue(forKey: waiter) : nil }
    continuation?.resume(throwing: CancellationError())
  }

  /// Tasks of their own: a refresh belongs to all who wait, and outlives the one who began it.
  private func begin(_ refresh: Int) {
    let work = Task {
      do {
        finish(refresh, .success(try await load()))
      } catch {
        finish(refresh, .failure(error))
      }
    }
    let deadline = deadline
    let timer = Task {
      try await Task.sleep(for: deadline)
      finish(
        refresh,
        .failure(
          MobulaError(
            .deadlineExceeded,
            "No new credentials for S3 came within \(deadline): check that their source answers (mobula credentials)."))
      )
      work.cancel()
    }
    Task {
      await work.value
      timer.cancel()
    }
  }

  private func finish(_ refresh: Int, _ result: Result<S3Credentials, any Error>) {
    let (answer, continuations) = state.withLock { state -> (Result<S3Credentials, any Error>, [Continuation]) in
      let outcome: CredentialsRefreshStateMachine.Outcome
      switch result {
      case .success(let credentials):
        outcome = state.machine.loaded(credentials, by: refresh, chance: .random(in: 0..<1), at: now())
      case .failure: outcome = state.machine.failed(refresh, at: now())
      }
      func take(_ waiters: [Int]) -> [Continuation] {
        waiters.compactMap { state.waiting.removeValue(forKey: $0) }
      }
      switch outcome {
      case .give(let credentials, let waiters): return (.success(credentials), take(waiters))
      case .fail(let waiters): return (result, take(waiters))
      case .late: return (result, [])
      }
    }
    for continuation in continuations { continuation.resume(with: answer) }
  }
}
