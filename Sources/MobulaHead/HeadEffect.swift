internal import Logging
internal import MobulaCore
internal import MobulaWire

/// What is to be done outside the lock, once the state machines have decided.
enum HeadEffect: Sendable {
  /// An answer for a caller that waits.
  case resume(@Sendable () -> Void)
  /// Say `disconnected` when the connection is gone.
  case watch(RPCConnection)
  case close(RPCConnection)
  /// Write records down, then go on.
  case commit(Commit)
  case drop(DropRequest, at: RPCConnection)
  case keep(KeepRequest, at: RPCConnection)
  case names(NameNews, at: RPCConnection)
  case ask(PodID, LeaseRequest, at: RPCConnection?)
  case release(PodID, LeaseReturn, at: RPCConnection?)
  case revoke(LeaseLost, at: RPCConnection)
  /// Call `tick` at this instant since the start.
  case wakeAt(Duration)
  case log(Logger.Level, Logger.Message)
}

/// A caller whose call has not been answered.
enum Waiter: Sendable {
  case locate(LocateRequest, CheckedContinuation<LocateReply, any Error>)
  case lease(CheckedContinuation<LeaseGrant, any Error>)
  case objects(CheckedContinuation<[ObjectID], any Error>)
  case part(CheckedContinuation<PartReply, any Error>)

  func fail(_ error: any Error) {
    switch self {
    case .locate(_, let continuation): continuation.resume(throwing: error)
    case .lease(let continuation): continuation.resume(throwing: error)
    case .objects(let continuation): continuation.resume(throwing: error)
    case .part(let continuation): continuation.resume(throwing: error)
    }
  }
}
