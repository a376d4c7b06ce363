public import MobulaCore
package import MobulaWire
import Synchronization

/// How far something long has come; called now and then, from any thread.
public typealias ProgressHandler = @Sendable (_ done: ByteCount, _ total: ByteCount?) -> Void

extension Cluster {
  /// Puts a file into this host's store as a `Blob` with a name.
  ///
  /// The bytes are read straight into shared memory. A FIFO, and a file without a size that can be believed, as those of
  /// /proc, is read to its end first; of a file that grows meanwhile, what it had at the beginning is put.
  /// - Parameters:
  ///   - path: the file's; `-` is standard input.
  ///   - name: what the object is called from then on.
  ///   - progress: told of the bytes that were put.
  /// - Throws: `MobulaError`: `inputOutput` when the file can't be read or shrinks meanwhile, `full` when the store has
  ///   no room, `invalidArgument` for folders, devices and sockets.
  public func putFile(_ path: String, name: String, progress: ProgressHandler? = nil) async throws -> ObjectRef<Blob> {
    try await put(file: path, name: name, progress: progress).reference
  }

  /// As `putFile`, where the name may be taken already.
  ///
  /// - Parameter replaces: whether the name is taken from another object.
  /// - Returns: also whether the same content had the name already, so that nothing was put.
  /// - Throws: also `alreadyExists` when the name is that of other content; where the sizes tell, before anything is read.
  package func put(file path: String, name: String, replaces: Bool = false, progress: ProgressHandler? = nil)
    async throws -> (reference: ObjectRef<Blob>, wasThere: Bool)
  {
    try Self.checkName(name)
    let capacity = FileSource.isStream(path) ? ByteCount(try await storeStatistics().capacity) : nil
    var old = try await listing(named: name)
    let source = try await FileSource.open(path, limit: capacity) { progress?(ByteCount($0), nil) }
    if let reference = try await same(source, as: old, name: name, replaces: replaces) { return (reference, true) }
    // Somebody else may be quicker, perhaps with the same; a name that is just being given is not seen yet.
    for _ in 0..<4 {
      do {
        return (try await put(source, name: name, replacing: old != nil, progress: progress), false)
      } catch let error as MobulaError where error.code == .alreadyExists && old == nil {
        old = try await listing(named: name)
        if let reference = try await same(source, as: old, name: name, replaces: replaces) { return (reference, true) }
      }
    }
    return (try await put(source, name: name, replacing: old != nil, progress: progress), false)
  }

  /// - Throws: `MobulaError` (`invalidArgument`) for names that the system gives.
  static func checkName(_ name: String) throws(MobulaError) {
    guard let objection = ReservedNames.objection(to: name) else { return }
    throw MobulaError(.invalidArgument, "The name \"\(name.printable)\" can't be given: \(objection).")
  }

  /// What has the name, where it is what `source` has.
  ///
  /// - Throws: `MobulaError` (`alreadyExists`) when it is something else that may not be replaced.
  private func same(
    _ source: FileSource, as old: ObjectListing?, name: String, replaces: Bool
  ) async throws -> ObjectRef<Blob>? {
    if let old {
      let size = ValueLayout.blob(size: source.size).layout.size
      let isSame =
        if old.size.bytes == size, let digest = old.digest { try await source.digest() == digest } else { false }
      // What no host has any more, or only such as are away, is put again under its name.
      let isHere = !old.hosts.isEmpty || !old.receiving.isEmpty
      if isSame, isHere {
        let reference = reference(to: old.object)
        try await store.holds.flush()
        return ObjectRef(reference)
      }
      guard isSame || replaces else {
        if !isHere, old.digest == nil {
          throw MobulaError(
            .alreadyExists,
            "The name \"\(name.printable)\" is that of object \(old.object), of which no host has anything: give another name, or take it from that with --replace."
          )
        }
        throw MobulaError(
          .alreadyExists,
          "The name \"\(name.printable)\" has other content (\(old.size), object \(old.object)): give another name, or take it from that with --replace."
        )
      }
    }
    return nil
  }

  /// `nil` where nothing has the name.
  private func listing(named name: String) async throws -> ObjectListing? {
    do { return try await listing(of: name) } catch let error as MobulaError where error.code == .notFound {
      return nil
    }
  }

  private func put(_ source: FileSource, name: String, replacing: Bool, progress: ProgressHandler?) async throws
    -> ObjectRef<Blob>
  {
    let size = source.size
    let (layout, prefix) = ValueLayout.blob(size: size)
    let object = ObjectID.random(job: job)
    let reference = newReference(to: object)
    try await store.make(object, size: layout.size, holds: true, contains: []) { writer in
      prefix.withUnsafeBytes { writer.append($0) }
      var done = 0
      while done < size {
        // So much stays in the cache until its checksum is computed.
        let piece = min(1 << 20, size - done)
        try writer.fill(piece) { try source.read(into: $0, at: done) }
        done += piece
        progress?(ByteCount(done), ByteCount(size))
      }
    }
    reference.share()
    // Only now, so that the old object keeps its name if the new one can't be made.
    if replacing {
      _ = try await onceKnown { try await store.call(HostAPI.removeName, ResolveRequest(Name(name))) }
    }
    _ = try await store.call(HostAPI.setName, NameRequest(name: Name(name), object: object))
    return ObjectRef(reference)
  }

  /// Writes a blob's bytes to a file, which appears whole or not at all, and keeps its mode and owner where it is there.
  ///
  /// What is no file (a device, a FIFO) gets the bytes and stays what it is; so does what a symbolic link leads to.
  public func write(_ blob: Blob, to path: String, progress: ProgressHandler? = nil) async throws {
    try await write(blob, to: FileTarget(path, name: ""), progress: progress)
  }

  @discardableResult package func write(_ blob: Blob, to target: FileTarget, progress: ProgressHandler? = nil)
    async throws -> FileTarget.Outcome
  {
    try await onThread(named: "write") {
      try blob.withUnsafeBytes { bytes in try target.write(bytes) { progress?(ByteCount($0), ByteCount(bytes.count)) } }
    }
  }

  /// The object with this name or id, or of which the id begins so, its leading zeros counted or not.
  ///
  /// - Throws: `MobulaError`: `notFound`, `invalidArgument` when several ids begin so.
  package func find(_ text: String) async throws -> ObjectListing {
    do { return try await listing(of: text) } catch let error as MobulaError where error.code == .notFound {
      let beginning = text.lowercased()
      guard 4..<32 ~= beginning.utf8.count, beginning.utf8.allSatisfy({ 0x30...0x39 ~= $0 || 0x61...0x66 ~= $0 }) else {
        throw error
      }
      let found = try await list().filter { object in
        let id = "\(object.object)"
        return id.hasPrefix(beginning) || id.drop { $0 == "0" }.hasPrefix(beginning)
      }
      guard let first = found.first else { throw error }
      guard found.count == 1 else {
        throw MobulaError(
          .invalidArgument, "The ids of \(found.count) objects begin with \(text): give more of it (`mobula ls`).")
      }
      return first
    }
  }

  /// As `find`, held from then on.
  package func object(found text: String) async throws -> (reference: ObjectRef<Blob>, listing: ObjectListing) {
    let listing = try await find(text)
    let reference = reference(to: listing.object)
    try await store.holds.flush()
    return (ObjectRef(reference), listing)
  }

  /// How much of an object is on this host.
  public func progress(of object: ObjectID) async throws -> (verified: ByteCount, total: ByteCount?) {
    let progress = try await store.call(HostAPI.progress, ObjectRequest(object))
    return (progress.verified, progress.total)
  }

  /// Every object that the head knows, in the order of their identifiers.
  public func list() async throws -> [ObjectListing] {
    var all: [ObjectListing] = []
    try await list { all += $0 }
    return all
  }

  /// Hands every object that the head knows to `page`, some thousand at a time, in the order of their identifiers.
  ///
  /// One that is there all the time comes exactly once; of one that comes or goes meanwhile that is not said.
  public func list(_ page: ([ObjectListing]) async throws -> Void) async throws {
    try await ObjectListing.reading({ try await head.call(HeadAPI.list, $0) }, page)
  }

  /// What the head knows of the object with this name, or this text form of an `ObjectID`.
  ///
  /// - Throws: `MobulaError` (`notFound`).
  public func listing(of nameOrID: String) async throws -> ObjectListing {
    let request = ResolveRequest(Name(nameOrID))
    return try await onceKnown {
      // The host has a connection to the head, of which a process may need nothing else.
      if store.welcome.resolves == true { return try await store.call(HostAPI.resolve, request) }
      return try await head.call(HeadAPI.resolve, request)
    }
  }

  /// Asks again as long as a head that was started without its journal has not heard of all that there may be.
  func onceKnown<Value>(_ ask: () async throws -> Value) async throws -> Value {
    let end = ContinuousClock.now + .seconds(30)
    while true {
      do { return try await ask() } catch let error as MobulaError where error.code == .unavailable {
        guard ContinuousClock.now < end,
          let status = try? await head.call(HeadAPI.status, StatusRequest(), deadline: .seconds(2))
        else { throw error }
        if status.settling != true { return try await ask() }
        try await Task.sleep(for: .milliseconds(250))
      }
    }
  }

  /// Takes an object's names away and drops it, whoever holds it.
  ///
  /// Processes that have mapped it go on reading it until they let go.
  public func remove(_ nameOrID: String) async throws -> ObjectListing {
    let request = ResolveRequest(Name(nameOrID))
    let listing = try await onceKnown { try await head.call(HeadAPI.resolve, request) }
    do {
      return try await head.callOnce(HeadAPI.remove, request, deadline: .seconds(30))
    } catch let error as MobulaError where error.code == .connectionClosed {
      do {
        return try await head.call(HeadAPI.remove, request)
      } catch let again as MobulaError where again.code == .notFound && error.mayHaveRun {
        // The head that went had removed it.
        return listing
      }
    }
  }

  /// Brings an object of S3 into the cluster, named by its URL: hosts that want it read it together, so that the bytes
  /// of one version leave S3 once, and again only where S3 was measured to be much faster than the hosts.
  ///
  /// - Parameters:
  ///   - url: `s3://bucket/key`.
  ///   - access: how S3 is spoken to, where that is not as the host's environment says.
  ///   - progress: told of the bytes that are here.
  /// - Throws: `MobulaError`: `notFound` for a bucket or key that is not there, `denied`, `unauthenticated` without credentials.
  public func fetch(
    _ url: String, access: S3Access = S3Access(), progress: ProgressHandler? = nil
  ) async throws -> ObjectRef<Blob> { try await fetchCounted(url, access: access, progress: progress).reference }

  /// As `fetch`, from another S3 than the one in the host's environment.
  ///
  /// - Parameter endpoint: `http://HOST:PORT`; `nil` for that in the environment.
  public func fetch(
    _ url: String, endpoint: String?, progress: ProgressHandler? = nil
  ) async throws -> ObjectRef<Blob> {
    try await fetch(url, access: S3Access(endpoint: endpoint), progress: progress)
  }

  /// As `fetch`, and the bytes that came into this host's store for this call.
  ///
  /// - Parameter waiting: told, again and again, what is waited for where that takes longer than it should.
  public func fetchCounted(
    _ url: String, access: S3Access = S3Access(), waiting: (@Sendable (String) -> Void)? = nil,
    progress: ProgressHandler? = nil
  ) async throws -> (reference: ObjectRef<Blob>, bytesCopied: Int) {
    var attempts = 0
    while true {
      do {
        return try await fetchOnce(url, access: access, waiting: waiting, progress: progress)
      } catch let error as FetchSourceGone {
        // Whoever read it has ended, as this host's process does that is started again. What came is kept.
        attempts += 1
        guard attempts <= 5 else { throw error.reason }
        try await Task.sleep(for: .milliseconds(200))
      }
    }
  }

  /// - Throws: also `FetchSourceGone` where the object was found and nobody has it any more.
  private func fetchOnce(
    _ url: String, access: S3Access, waiting: (@Sendable (String) -> Void)?, progress: ProgressHandler?
  ) async throws -> (reference: ObjectRef<Blob>, bytesCopied: Int) {
    let connections = store.link.connections
    // The object is known at once, while its bytes are still arriving.
    let reply = try await store.call(HostAPI.fetch, FetchRequest(url: url, access: access), deadline: .seconds(120))
    let reference = reference(to: reply.object)
    try await store.holds.flush()
    let watching = Task {
      while !Task.isCancelled, progress != nil || waiting != nil {
        if let now = try? await store.call(HostAPI.progress, ObjectRequest(reply.object)) {
          progress?(now.verified, now.total)
          if let problem = now.waiting { waiting?(problem) }
        }
        try await Task.sleep(for: .milliseconds(200))
      }
    }
    defer { watching.cancel() }
    do {
      return (ObjectRef(reference), try await bringWhileItComes(reply.object))
    } catch let error as MobulaError
      where error.code == .notFound || error.code == .unavailable && store.link.connections != connections
    {
      throw FetchSourceGone(reason: error)
    }
  }

  /// Brings small objects here, each by one request to S3, as their host's cache, under their URLs as names.
  ///
  /// - Parameter entries: at most `FetchSmallRequest.mostEntries`, of which `ListS3Reply.Entry.isSmall`.
  /// - Returns: for each its object, and the bytes that came for this call; without an object where `fetch` is needed.
  package func fetchSmall(
    _ entries: [ListS3Reply.Entry], access: S3Access = S3Access()
  ) async throws -> [FetchSmallReply.Outcome] {
    let request = FetchSmallRequest(entries: entries, access: access)
    let outcomes = try await store.call(HostAPI.fetchSmall, request, deadline: .seconds(300)).outcomes
    guard outcomes.count == entries.count else {
      throw MobulaError(
        .protocolViolation, "The host answered for \(outcomes.count) of \(entries.count) objects: run one version.")
    }
    return outcomes
  }

  /// Brings an object here however long it takes, as long as bytes of it come: the deadline is for the next of them.
  ///
  /// - Returns: bytes that came for this call.
  private func bringWhileItComes(_ object: ObjectID) async throws -> Int {
    var known = -1
    while true {
      do {
        return try await store.bring(object, sources: .relay, deadline: options.valueDeadline ?? .seconds(600))
          .bytesCopied
      } catch let error as MobulaError where error.code == .deadlineExceeded {
        guard let verified = try? await progress(of: object).verified.bytes, verified > known else { throw error }
        known = verified
      }
    }
  }

  /// Brings all objects under a prefix of S3 into the cluster, as `fetch` does, and maps them: a model's directory.
  ///
  /// - Parameters:
  ///   - url: `s3://bucket/prefix/`.
  ///   - access: how S3 is spoken to, where that is not as the host's environment says.
  /// - Returns: the objects' bytes by the rest of their keys, as in `config.json` and `tokenizer/vocabulary.txt`. They
  ///   stay in this host's memory as long as they are used.
  /// - Throws: `MobulaError`: as `fetch`, and `notFound` when there is nothing.
  public func fetchDirectory(_ url: String, access: S3Access = S3Access()) async throws -> [Name: Blob] {
    let prefix = url.hasSuffix("/") ? url : url + "/"
    let entries = try await entriesInS3(prefix, access: access)
    let here = await fetchTogether(entries.filter(\.isSmall), access: access)
    return try await withThrowingTaskGroup(of: (Name, Blob).self) { group in
      var blobs: [Name: Blob] = [:]
      for (index, entry) in entries.enumerated() {
        // As many at a time as keep the network busy.
        if index >= 8, let (name, blob) = try await group.next() { blobs[name] = blob }
        group.addTask {
          let name = Name(Substring(entry.url.text.utf8.dropFirst(prefix.utf8.count)))
          // One that had to make room meanwhile comes again.
          if let object = here[entry.url], let blob = try? await self.blob(object) { return (name, blob) }
          return (name, try await self.fetch(entry.url.text, access: access).value)
        }
      }
      for try await (name, blob) in group { blobs[name] = blob }
      return blobs
    }
  }

  private func blob(_ object: ObjectID) async throws -> Blob {
    let reference = ObjectRef<Blob>(reference(to: object))
    try await store.holds.flush()
    return try await reference.value
  }

  /// Small objects by the dozen, several dozens at a time.
  ///
  /// - Returns: those that came, by their URLs; the others have to come by themselves.
  private func fetchTogether(_ entries: [ListS3Reply.Entry], access: S3Access) async -> [Name: ObjectID] {
    let units = FetchUnits(entries, holdsEach: false)
    let outcomes = await units.together { unit in
      let outcomes = try? await self.fetchSmall(unit.map { entries[$0] }, access: access)
      return zip(unit, outcomes ?? unit.map { _ in FetchSmallReply.Outcome() }).map { ($0, $1.object) }
    }
    return Dictionary(
      zip(entries, outcomes).compactMap { entry, object in object.map { (entry.url, $0) } }, uniquingKeysWith: { $1 })
  }

  /// As `fetchDirectory`, from another S3 than the one in the host's environment.
  ///
  /// - Parameter endpoint: `http://HOST:PORT`; `nil` for that in the environment.
  public func fetchDirectory(_ url: String, endpoint: String?) async throws -> [Name: Blob] {
    try await fetchDirectory(url, access: S3Access(endpoint: endpoint))
  }

  /// From where the bytes of an object came that this host received lately; `nil` for what it made itself.
  package func sources(of object: ObjectID) async throws -> ObjectSources? {
    try await store.call(HostAPI.sources, ObjectRequest(object)).origins
  }

  /// What lies under `s3://bucket/prefix`, or the object that is called so: URLs and sizes.
  public func listS3(_ url: String, access: S3Access = S3Access()) async throws -> [(url: String, size: ByteCount)] {
    try await entriesInS3(url, access: access).map { ($0.url.text, $0.size) }
  }

  /// As `listS3`, of another S3 than the one in the host's environment.
  ///
  /// - Parameter endpoint: `http://HOST:PORT`; `nil` for that in the environment.
  public func listS3(_ url: String, endpoint: String?) async throws -> [(url: String, size: ByteCount)] {
    try await listS3(url, access: S3Access(endpoint: endpoint))
  }

  /// As `listS3`, with what `fetchSmall` needs.
  package func entriesInS3(_ url: String, access: S3Access = S3Access()) async throws -> [ListS3Reply.Entry] {
    var entries: [ListS3Reply.Entry] = []
    var next: String?
    repeat {
      let request = ListS3Request(url: url, access: access, after: next)
      let reply = try await store.call(HostAPI.listS3, request, deadline: .seconds(120))
      entries += reply.entries
      next = reply.next
    } while next != nil
    return entries
  }
}

private struct FetchSourceGone: Error {
  let reason: MobulaError
}
