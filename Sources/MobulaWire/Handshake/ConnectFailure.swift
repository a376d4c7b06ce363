public import MobulaCore

/// Why a connection did not come about: how far it came says what the reason is worth.
///
/// Only a peer that has proved that it has the cluster's token can refuse this process for good, and such a refusal
/// is no `ConnectFailure`: it is the error of a call on the connection.
public enum ConnectFailure: Error, Hashable, Sendable {
  /// Nobody was there, or nobody said anything.
  case unreachable(MobulaError)
  /// Somebody answered without a proof that it has the token. It may be anybody: another process at an address that
  /// was a head's, a proxy, an attacker. What it says is shown to people, and decides nothing.
  case unproven(MobulaError)

  public var error: MobulaError {
    switch self {
    case .unreachable(let error), .unproven(let error): error
    }
  }

  /// - Parameter error: of a handshake on a connection that was made.
  init(handshake error: MobulaError) {
    // Silence, or an end without a word, says nothing about who is there: a process that is being started or stopped
    // looks like that.
    self = [.deadlineExceeded, .connectionClosed].contains(error.code) ? .unreachable(error) : .unproven(error)
  }
}
