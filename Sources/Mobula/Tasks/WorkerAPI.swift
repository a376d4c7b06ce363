import MobulaCore
import MobulaWire

/// What a worker answers to the drivers that lease it.
enum WorkerAPI {
  /// Opens the lane of a lease, which ends with it. Nothing comes of it but its end.
  static let work = RPCStreamMethod<WorkLane, Empty>("worker.work")
  static let push = RPCNotice<WorkPush>("worker.push")
  /// The worker's, to whoever has opened the lane.
  static let ended = RPCNotice<WorkEnded>("worker.ended")
  /// Answered with `recalled`.
  static let recall = RPCNotice<WorkRecall>("worker.recall")
  /// The worker's: those that had not begun, and will not.
  static let recalled = RPCNotice<WorkRecall>("worker.recalled")
  static let cancel = RPCNotice<WorkCancel>("worker.cancel")
  /// The worker's: a result becomes an object, which its submitter holds once this is answered with true.
  static let storing = RPCMethod<WorkStoring, Bool>("worker.storing")
  /// Calls of one connection to one actor begin in the order in which they came.
  static let call = RPCNotice<ActorCalling>("worker.call")
  static let cancelCalls = RPCNotice<ActorCalls.Numbers>("worker.cancelCalls")
  /// The worker's: a call has ended.
  static let returned = RPCNotice<ActorReturns>("worker.returned")
  /// The worker's, as `storing`.
  static let storingCall = RPCMethod<ActorCalls.Numbers, Bool>("worker.storingCall")
}

/// Where the tasks of one lease run, one after the other.
struct WorkLane: Codable, Sendable {
  var lease: LeaseID
  /// What the lease has.
  var resources: Resources
}

struct WorkPush: Codable, Sendable {
  var lease: LeaseID
  /// `WorkCoding.tasks`.
  var tasks: ByteString
}

/// Tasks that are not to be begun, or that were not.
struct WorkRecall: Codable, Sendable {
  var lease: LeaseID
  var tasks: [UInt64]
}

struct WorkEnded: Codable, Sendable {
  var lease: LeaseID
  /// `WorkCoding.ends`.
  var ends: ByteString
}

/// Tasks that are to end, or not to begin; each ends all the same, with `cancelled` if by nothing else.
struct WorkCancel: Codable, Sendable {
  var lease: LeaseID
  var tasks: [UInt64]
  /// Whether what they have submitted is to end as well.
  var children: Bool
}

struct WorkStoring: Codable, Sendable {
  var lease: LeaseID
  var task: UInt64
}

struct ActorCalling: Codable, Sendable {
  /// `WorkCoding.call`.
  var call: ByteString
}

struct ActorReturns: Codable, Sendable {
  /// `WorkCoding.ends`, by the numbers of calls.
  var ends: ByteString
}
