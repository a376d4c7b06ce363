public import Distributed
import MobulaCore
import Synchronization

/// Gathers the arguments of a distributed call.
public struct CallEncoder: DistributedTargetInvocationEncoder, Sendable {
  public typealias SerializationRequirement = Codable

  var arguments: [ByteString] = []
  var substitutions: [String] = []
  var references: [AnyReference] = []

  public mutating func recordGenericSubstitution<Type>(_ type: Type.Type) throws {
    guard let name = _mangledTypeName(type) else {
      throw MobulaError(
        .invalidArgument, "\(type) has no name that a worker could find: declare it outside of functions.")
    }
    substitutions.append(name)
  }

  public mutating func recordArgument<Value: Codable>(_ argument: RemoteCallArgument<Value>) throws {
    let encoded = try ArgumentCoding.encode(argument.value)
    arguments.append(encoded.bytes)
    references += encoded.references
  }

  public mutating func recordReturnType<Value: Codable>(_ type: Value.Type) throws {}
  public mutating func recordErrorType<Failure: Error>(_ type: Failure.Type) throws {}
  public mutating func doneRecording() throws {}
}

/// Hands out the arguments of a distributed call at the actor's side.
public struct CallDecoder: DistributedTargetInvocationDecoder {
  public typealias SerializationRequirement = Codable

  private let arguments: [ByteString]
  private let substitutions: [String]
  private let reader: ValueReader
  private var next = 0

  init(arguments: [ByteString], substitutions: [String], reader: ValueReader) {
    self.arguments = arguments
    self.substitutions = substitutions
    self.reader = reader
  }

  public mutating func decodeGenericSubstitutions() throws -> [any Any.Type] {
    try substitutions.map { name in
      guard let type = _typeByName(name) else {
        throw MobulaError(
          .mismatch,
          "The type \(readableName(ofType: name)) is not in this worker's program: run the same build everywhere.")
      }
      return type
    }
  }

  public mutating func decodeNextArgument<Value: Codable>() throws -> Value {
    guard next < arguments.count else {
      throw MobulaError(.protocolViolation, "A call has \(arguments.count) arguments where more are due.")
    }
    defer { next += 1 }
    return try ArgumentCoding.decode(Value.self, from: arguments[next], reader: reader)
  }

  public mutating func decodeReturnType() throws -> (any Any.Type)? { nil }
  public mutating func decodeErrorType() throws -> (any Any.Type)? { nil }
}

/// Takes the result of a distributed call at the actor's side.
public final class CallResultHandler: DistributedTargetInvocationResultHandler, Sendable {
  public typealias SerializationRequirement = Codable

  private let result = Mutex<EncodedValue?>(nil)

  /// The encoded result; `nil` for `Void`.
  var taken: EncodedValue? { result.withLock { $0 } }

  public func onReturn<Value: Codable>(value: Value) async throws {
    let encoded = try EncodedValue(value)
    result.withLock { $0 = encoded }
  }

  public func onReturnVoid() async throws {}

  public func onThrow<Failure: Error>(error: Failure) async throws { throw error }
}
