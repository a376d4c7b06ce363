import MobulaCore
import MobulaWire

/// What a worker answers to the drivers that lease it.
enum WorkerAPI {
  static let run = RPCMethod<TaskCall, WorkReply>("worker.run")
  static let spawn = RPCMethod<SpawnCall, ActorAddress>("worker.spawn")
  static let stop = RPCMethod<ActorAddress, Empty>("worker.stop")
  static let call = RPCMethod<ActorCall, WorkReply>("worker.call")
  /// The caller has registered the references in a reply; the worker may let go of them.
  static let received = RPCMethod<ReplyReceived, Empty>("worker.received")
}

struct TaskCall: Codable, Sendable {
  /// Mangled name of the `RemoteTask`.
  var type: String
  var arguments: ByteString
  /// The object that the result becomes.
  var result: ObjectID
}

struct SpawnCall: Codable, Sendable {
  /// Mangled name of the `RemoteActor`.
  var type: String
  var configuration: ByteString
  var lease: LeaseID
}

struct ActorCall: Codable, Sendable {
  var actor: RemoteActorID
  /// Mangled name of the distributed function.
  var target: String
  var substitutions: [String]
  var arguments: [ByteString]
}

/// The result of a call, or nothing for a task: its result is an object.
struct WorkReply: Codable, Sendable {
  /// `nil` for `Void`.
  var value: ByteString?
  /// Set when the value has references, which the worker keeps until `received` says so.
  var reply: UInt64?
}

struct ReplyReceived: Codable, Sendable {
  var reply: UInt64
}
