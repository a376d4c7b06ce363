/// More of what a host has, on the connection on which it began to register.
package struct RegistrationPart: Codable, Sendable {
  package var host: HostID
  package var replicas: [ReplicaReport] = []
  package var holds: [ObjectID] = []
  package var names: [Name: KnownName] = [:]
  /// Whether still more follows.
  package var more: Bool?

  package init(host: HostID) { self.host = host }
}

extension HostRegistration {
  /// This registration in parts that each fit into a frame, in the order in which they are to be sent.
  ///
  /// - Parameter bytes: about how many a part has.
  package func parts(of bytes: Int = PageBudget.bytes) -> (first: HostRegistration, rest: [RegistrationPart]) {
    var first = self
    (first.replicas, first.holds, first.names) = ([], [], [:])
    var rest: [RegistrationPart] = []
    var budget = PageBudget(bytes: bytes)
    func room(_ size: Int) {
      if budget.take(size) { return }
      budget = PageBudget(bytes: bytes)
      _ = budget.take(size)
      rest.append(RegistrationPart(host: host))
    }
    for replica in replicas {
      room(96 + 17 * replica.contains.count)
      if rest.isEmpty { first.replicas.append(replica) } else { rest[rest.count - 1].replicas.append(replica) }
    }
    for object in holds {
      room(17)
      if rest.isEmpty { first.holds.append(object) } else { rest[rest.count - 1].holds.append(object) }
    }
    for (name, known) in names {
      room(64 + name.utf8.count)
      if rest.isEmpty { first.names[name] = known } else { rest[rest.count - 1].names[name] = known }
    }
    if !rest.isEmpty {
      first.more = true
      for index in rest.indices.dropLast() { rest[index].more = true }
    }
    return (first, rest)
  }

  /// Takes in what came behind.
  package mutating func add(_ part: RegistrationPart) {
    replicas += part.replicas
    holds += part.holds
    names.merge(part.names) { $1 }
    more = part.more
  }
}
