import MobulaCore
import MobulaHost
import MobulaStore

/// An object that this process has mapped and pinned; let go of with the last owner.
final class PinnedObject: Sendable {
  let object: ObjectID
  let digest: ObjectDigest
  /// Bytes that came into this host's store for this pin.
  let bytesCopied: Int
  private let mapped: MappedObject
  private let session: StoreSession

  init(object: ObjectID, digest: ObjectDigest, bytesCopied: Int, mapped: MappedObject, session: StoreSession) {
    self.object = object
    self.digest = digest
    self.bytesCopied = bytesCopied
    self.mapped = mapped
    self.session = session
  }

  deinit { session.unpin(object) }

  var bytes: UnsafeRawBufferPointer { mapped.bytes }
}
