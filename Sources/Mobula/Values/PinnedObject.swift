import MobulaStore

/// An object that this process has mapped and pinned; let go of with the last owner.
final class PinnedObject: ObjectMemory {
  private let pinned: PinnedBytes

  init(_ pinned: consuming PinnedBytes) { self.pinned = pinned }

  var bytes: UnsafeRawBufferPointer { pinned.bytes }
}
